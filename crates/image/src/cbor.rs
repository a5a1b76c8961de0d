//! CBOR (RFC 8949) as images use it: a check of its shape before anything is decoded, and byte strings for serde.
//!
//! A decoder that meets `9b ff ff ff ff ff ff ff ff` may try to make room for 2^64 items, and one that meets ten thousand
//! `81` may run out of stack. [`scan`] walks the bytes first, without allocating and without recursion, and lets only
//! through what fits the limits of `wire.rs` and ends exactly where the body does. It says at which byte it gave up.

use crate::wire::{ITEMS_MAX, NESTING_MAX};
use ciborium::Value;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;

/// What [`scan`] or [`decode`] objects to: where, whether it is a limit, and what.
#[derive(Debug)]
pub(crate) struct Fault {
    pub at: usize,
    pub limit: bool,
    pub what: String,
}

impl Fault {
    fn new(at: usize, what: impl Into<String>) -> Fault {
        Fault { at, limit: false, what: what.into() }
    }

    fn limit(at: usize, what: impl Into<String>) -> Fault {
        Fault { at, limit: true, what: what.into() }
    }
}

/// What an open array, map, tag or string of unknown length still waits for.
#[derive(Clone, Copy)]
enum Open {
    /// This many more items.
    Items(u64),
    /// Items up to the break; the flag says whether a map's value is due.
    Array,
    Map {
        value_due: bool,
    },
    /// Chunks of this major type up to the break.
    Chunks(u8),
}

/// Walks one CBOR item that must fill `bytes` exactly.
pub(crate) fn scan(bytes: &[u8]) -> Result<(), Fault> {
    let mut open = [Open::Items(0); NESTING_MAX];
    let mut depth: usize = 0;
    let mut at = 0;
    let mut items = 0;
    loop {
        let start = at;
        let (major, info, argument) = head(bytes, &mut at)?;
        items += 1;
        if items > ITEMS_MAX {
            return Err(Fault::limit(start, format!("more than {ITEMS_MAX} CBOR items")));
        }
        if let Some(Open::Chunks(of)) = depth.checked_sub(1).map(|d| open[d])
            && !(major == of && argument.is_some() || (major, info) == (7, 31))
        {
            return Err(Fault::new(start, "a CBOR string of chunks with something else among them"));
        }
        let opened = match (major, argument) {
            (0 | 1, Some(_)) => None,
            (2 | 3, Some(len)) => {
                at = usize::try_from(len)
                    .ok()
                    .and_then(|len| at.checked_add(len))
                    .filter(|end| *end <= bytes.len())
                    .ok_or_else(|| {
                        Fault::new(start, format!("a CBOR string of {len} bytes passes the end"))
                    })?;
                None
            }
            (2 | 3, None) => Some(Open::Chunks(major)),
            (4 | 5, Some(count)) => {
                let count = if major == 5 { count.saturating_mul(2) } else { count };
                if count > (bytes.len() - at) as u64 {
                    return Err(Fault::new(start, "a CBOR array or map with more items than bytes left"));
                }
                Some(Open::Items(count))
            }
            (4, None) => Some(Open::Array),
            (5, None) => Some(Open::Map { value_due: false }),
            (6, Some(_)) => Some(Open::Items(1)),
            (7, Some(_)) => None,
            (7, None) => {
                // A break ends the innermost open item, which then counts as one item of what holds it.
                match depth.checked_sub(1).map(|d| open[d]) {
                    Some(Open::Array | Open::Chunks(_) | Open::Map { value_due: false }) => depth -= 1,
                    _ => return Err(Fault::new(start, "a CBOR break with nothing to end")),
                }
                None
            }
            _ => return Err(Fault::new(start, "a CBOR number or tag without a value")),
        };
        match opened {
            Some(Open::Items(0)) | None => {}
            Some(_) if depth == NESTING_MAX => {
                return Err(Fault::limit(start, format!("CBOR nested more than {NESTING_MAX} deep")));
            }
            Some(new) => {
                open[depth] = new;
                depth += 1;
                continue;
            }
        }
        // One item is whole: so may be what it was the last item of.
        loop {
            let Some(top) = depth.checked_sub(1).map(|d| &mut open[d]) else {
                return match bytes.len() - at {
                    0 => Ok(()),
                    rest => Err(Fault::new(at, format!("{rest} bytes after the CBOR item"))),
                };
            };
            match top {
                Open::Items(left) => {
                    *left -= 1;
                    if *left > 0 {
                        break;
                    }
                    depth -= 1;
                }
                Open::Map { value_due } => {
                    *value_due = !*value_due;
                    break;
                }
                Open::Array | Open::Chunks(_) => break,
            }
        }
    }
}

/// Reads an item's head: major type, low five bits, and its argument (`None` for an indefinite length or a break).
fn head(bytes: &[u8], at: &mut usize) -> Result<(u8, u8, Option<u64>), Fault> {
    let start = *at;
    let ends = || Fault::new(start, "the CBOR ends in the middle of an item");
    let first = *bytes.get(start).ok_or_else(ends)?;
    let (major, info) = (first >> 5, first & 31);
    *at += 1;
    let width = match info {
        0..=23 => return Ok((major, info, Some(u64::from(info)))),
        24..=27 => 1 << (info - 24),
        31 => return Ok((major, info, None)),
        _ => return Err(Fault::new(start, format!("no CBOR item begins with {first:#04x}"))),
    };
    let tail = bytes.get(*at..*at + width).ok_or_else(ends)?;
    *at += width;
    Ok((major, info, Some(tail.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))))
}

/// Decodes one item that fills `bytes` exactly.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, Fault> {
    scan(bytes)?;
    ciborium::from_reader(bytes).map_err(|error| match error {
        ciborium::de::Error::Syntax(at) => Fault::new(at, "this isn't CBOR"),
        ciborium::de::Error::Semantic(at, what) => Fault::new(at.unwrap_or(0), what),
        ciborium::de::Error::Io(_) => Fault::new(bytes.len(), "the CBOR ends in the middle of an item"),
        ciborium::de::Error::RecursionLimitExceeded => Fault::limit(0, "CBOR nested too deep"),
    })
}

/// Takes apart a map whose keys are all text and all different.
pub(crate) fn fields(value: Value) -> Result<std::collections::BTreeMap<String, Value>, String> {
    let Value::Map(entries) = value else { return Err("not a CBOR map".into()) };
    let mut out = std::collections::BTreeMap::new();
    for (key, value) in entries {
        let Value::Text(key) = key else { return Err("a map key that isn't text".into()) };
        if out.contains_key(&key) {
            return Err(format!("the field {key:?} twice"));
        }
        out.insert(key, value);
    }
    Ok(out)
}

/// Bytes that serde writes as one CBOR byte string. (A plain `Vec<u8>` becomes an array of numbers, twice as long and
/// counted item by item.)
#[derive(Clone, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes: \"{}\")", self.0.len(), self.0[..self.0.len().min(32)].escape_ascii())
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Blob {
        Blob(bytes)
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Blob {
        Blob(bytes.to_vec())
    }
}

impl std::ops::Deref for Blob {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Blob, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn what_rfc_8949_calls_well_formed_is_accepted() {
        // From its appendix A.
        for hex in [
            "00",
            "17",
            "1818",
            "1903e8",
            "1a000f4240",
            "1bffffffffffffffff",
            "20",
            "3863",
            "f90000",
            "fa47c35000",
            "fb3ff199999999999a",
            "f4",
            "f6",
            "f7",
            "f0",
            "f8ff",
            "c074323031332d30332d32315432303a30343a30305a",
            "d74401020304",
            "40",
            "4401020304",
            "60",
            "6161",
            "62c3bc",
            "80",
            "83010203",
            "8301820203820405",
            "98190102030405060708090a0b0c0d0e0f101112131415161718181819",
            "a0",
            "a201020304",
            "a26161016162820203",
            "826161a161626163",
            "5f42010243030405ff",
            "7f657374726561646d696e67ff",
            "9fff",
            "9f018202039f0405ffff",
            "83018202039f0405ff",
            "bf61610161629f0203ffff",
            "bf6346756ef563416d7421ff",
            "5fff",
            "bfff",
        ] {
            assert!(scan(&bytes(hex)).is_ok(), "{hex}: {:?}", scan(&bytes(hex)));
        }
    }

    #[test]
    fn what_rfc_8949_calls_malformed_is_refused_at_its_place() {
        // From its appendix F, with the byte at which it goes wrong.
        for (hex, at) in [
            ("", 0),
            ("18", 0),
            ("19", 0),
            ("1a", 0),
            ("1901", 0),
            ("1b01020304050607", 0),
            ("38", 0),
            ("58", 0),
            ("98", 0),
            ("9a01ff00", 0),
            ("b8", 0),
            ("d8", 0),
            ("f8", 0),
            ("f900", 0),
            ("fa0000", 0),
            ("41", 0),
            ("61", 0),
            ("5affffffff00", 0),
            ("5bffffffffffffffff010203", 0),
            ("7affffffff00", 0),
            ("81", 0),
            ("818181818181818181", 8),
            ("8200", 0),
            ("a1", 0),
            ("a20102", 0),
            ("a100", 0),
            ("a2000000", 0),
            ("c0", 1),
            ("5f4100", 3),
            ("7f6100", 3),
            ("9f", 1),
            ("9f0102", 3),
            ("bf", 1),
            ("bf01020102", 5),
            ("819f", 2),
            ("9f8000", 3),
            ("9f9f9f9f9fffffffff", 9),
            ("9f819f819f9fffffff", 9),
            ("1c", 0),
            ("1d", 0),
            ("1e", 0),
            ("3c", 0),
            ("5c", 0),
            ("7c", 0),
            ("9c", 0),
            ("bc", 0),
            ("dc", 0),
            ("fc", 0),
            ("5f00ff", 1),
            ("5f21ff", 1),
            ("5f6100ff", 1),
            ("5f80ff", 1),
            ("5fa0ff", 1),
            ("5fc000ff", 1),
            ("5fe0ff", 1),
            ("7f4100ff", 1),
            ("5f5f4100ffff", 1),
            ("7f7f6100ffff", 1),
            ("ff", 0),
            ("81ff", 1),
            ("8200ff", 2),
            ("a1ff", 0),
            ("a1ff00", 1),
            ("a100ff", 2),
            ("a20000ff", 0),
            ("9f81ff", 2),
            ("9f829f819f9fffffffff", 9),
            ("bf00ff", 2),
            ("bf000000ff", 4),
            ("1f", 0),
            ("3f", 0),
            ("df", 0),
            ("0000", 1),
        ] {
            let fault = scan(&bytes(hex)).expect_err(hex);
            assert!(!fault.limit && fault.at == at, "{hex}: {fault:?}");
        }
    }
}
