//! The header: what anyone may want to know of an image before, or instead of, reading the rest.
//!
//! It is a CBOR map with named fields. A reader takes what it knows; what it doesn't know stays in `extra` and is written
//! again by a copy, so an old bardo doesn't drop what a newer one wrote. Only `identity` must be there.

use crate::cbor;
use ciborium::Value;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;

/// Named values, of a header or of what a reader didn't know.
pub type Fields = BTreeMap<String, Value>;

/// What tells an image from all others: sixteen random bytes. Its children name it by this.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(pub(crate) [u8; 16]);

impl Identity {
    /// A new identity, from the system's random numbers.
    pub fn random() -> io::Result<Identity> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::from)?;
        Ok(Identity(bytes))
    }

    /// The identity with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Identity {
        Identity(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

/// The text isn't an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an image's identity is 32 hexadecimal digits")]
pub struct NotAnIdentity;

impl FromStr for Identity {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Identity, NotAnIdentity> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return Err(NotAnIdentity);
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).ok_or(NotAnIdentity);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Identity(bytes))
    }
}

impl Serialize for Identity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Identity, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What the first bytes of an image say about it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Header {
    /// Which image this is.
    pub identity: Identity,
    /// The image that holds the pages this one lacks; `None` for a base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Identity>,
    /// When the tree stood still: nanoseconds since 1970 (`CLOCK_REALTIME`).
    pub created_unix_ns: u64,
    /// The program and version that wrote it, as "bardo 0.1.0".
    pub writer: String,
    /// The root process's command line, for people.
    pub command: String,
    /// What the image needs of the host it is restarted on.
    pub host: Host,
    /// The tree in figures: "processes", "threads", …
    pub summary: Fields,
    /// Fields that this version doesn't know.
    #[serde(flatten)]
    pub extra: Fields,
}

/// What an image needs of its host.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct Host {
    /// The machine, as uname(2) names it.
    pub arch: String,
    /// The release of the kernel that the tree ran on.
    pub kernel: String,
    /// Bytes of a page there.
    pub page_size: u32,
    /// The CPU features the tree may be using, as /proc/cpuinfo names them.
    pub cpu: Vec<String>,
    /// Fields that this version doesn't know.
    #[serde(flatten)]
    pub extra: Fields,
}

impl Header {
    /// A header with a fresh identity, the present time and nothing else.
    pub fn new(writer: impl Into<String>) -> io::Result<Header> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(Header {
            identity: Identity::random()?,
            parent: None,
            created_unix_ns: now.as_nanos().try_into().unwrap_or(u64::MAX),
            writer: writer.into(),
            command: String::new(),
            host: Host::default(),
            summary: Fields::new(),
            extra: Fields::new(),
        })
    }

    // serde's `flatten` can't be used for reading: it buffers values in a type that has no CBOR tags, and would refuse a
    // newer header that holds one in a field we don't even know.
    pub(crate) fn from_value(value: Value) -> Result<Header, String> {
        let mut fields = cbor::fields(value)?;
        let identity = match fields.remove("identity") {
            None => return Err("the field \"identity\" is missing".into()),
            Some(value) => typed("identity", &value)?,
        };
        Ok(Header {
            identity,
            parent: take(&mut fields, "parent")?,
            created_unix_ns: take(&mut fields, "created_unix_ns")?,
            writer: take(&mut fields, "writer")?,
            command: take(&mut fields, "command")?,
            host: fields.remove("host").map_or(Ok(Host::default()), Host::from_value)?,
            summary: fields.remove("summary").map_or(Ok(Fields::new()), cbor::fields)?,
            extra: fields,
        })
    }
}

impl Host {
    fn from_value(value: Value) -> Result<Host, String> {
        let mut fields = cbor::fields(value).map_err(|what| format!("the field \"host\": {what}"))?;
        Ok(Host {
            arch: take(&mut fields, "arch")?,
            kernel: take(&mut fields, "kernel")?,
            page_size: take(&mut fields, "page_size")?,
            cpu: take(&mut fields, "cpu")?,
            extra: fields,
        })
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        Header::from_value(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Host, D::Error> {
        Host::from_value(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

fn take<T: DeserializeOwned + Default>(fields: &mut Fields, name: &str) -> Result<T, String> {
    fields.remove(name).map_or(Ok(T::default()), |value| typed(name, &value))
}

fn typed<T: DeserializeOwned>(name: &str, value: &Value) -> Result<T, String> {
    value.deserialized().map_err(|error| format!("the field {name:?}: {error}"))
}
