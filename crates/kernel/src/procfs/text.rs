//! What all the parsers share: numbers, `Key: value` lines, escapes, and how a malformed text is named.
//!
//! A failure of `parse` begins with the file's name alone (`status: Uid: …`), since the text may come from anywhere;
//! [`read`] puts the directory in front of it.

use std::path::Path;
use std::str::FromStr;

use crate::error::{Failed, Result};
use crate::fs;

/// Longest piece of foreign text that a failure quotes.
const QUOTE_BYTES_MAX: usize = 120;

/// A piece of foreign text, quoted and cut for a message.
pub(super) fn quote(text: &[u8]) -> String {
    let cut = &text[..text.len().min(QUOTE_BYTES_MAX)];
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!("\"{}{dots}\"", cut.escape_ascii())
}

/// The failure for a text that isn't what the man page says.
pub(super) fn malformed(file: &str, what: &str, text: &[u8]) -> Failed {
    Failed::unexpected(format!("{file}: {what}: {} isn't understood", quote(text)))
}

/// The failure for a line that every kernel we know writes, and that isn't there.
pub(super) fn missing(file: &str, what: &str) -> Failed {
    Failed::unexpected(format!("{file}: no {what}"))
}

/// Reads a file of `/proc` whole and parses it; a failure to parse gets the path in front.
pub(super) fn read<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    parse_of(path, &fs::read_all(path)?, parse)
}

/// Like [`read`], but never more than `piece` bytes a call.
pub(super) fn read_in_pieces<T>(
    path: &Path,
    piece: usize,
    parse: impl FnOnce(&[u8]) -> Result<T>,
) -> Result<T> {
    parse_of(path, &fs::read_all_in_pieces(path, piece)?, parse)
}

fn parse_of<T>(path: &Path, text: &[u8], parse: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    let dir = path.parent().unwrap_or(Path::new("/")).display();
    parse(text).map_err(|e| {
        let call = format!("{dir}/{}", e.call);
        e.of(call)
    })
}

/// A decimal number, blanks around it allowed.
pub(super) fn number<T: FromStr>(file: &str, what: &str, text: &[u8]) -> Result<T> {
    ascii(text).and_then(|s| s.parse().ok()).ok_or_else(|| malformed(file, what, text))
}

/// A number in base 8 or 16, a leading `0x` allowed in the latter.
pub(super) fn radix(file: &str, what: &str, text: &[u8], base: u32) -> Result<u64> {
    ascii(text)
        .map(|s| if base == 16 { s.strip_prefix("0x").unwrap_or(s) } else { s })
        // from_str_radix takes a sign, which no file of /proc writes here.
        .filter(|s| s.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|s| u64::from_str_radix(s, base).ok())
        .ok_or_else(|| malformed(file, what, text))
}

/// Numbers separated by blanks; none is fine.
pub(super) fn numbers<T: FromStr>(file: &str, what: &str, text: &[u8]) -> Result<Vec<T>> {
    text.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).map(|w| number(file, what, w)).collect()
}

/// Exactly N numbers separated by blanks.
pub(super) fn array<T: FromStr, const N: usize>(file: &str, what: &str, text: &[u8]) -> Result<[T; N]> {
    numbers(file, what, text)?.try_into().map_err(|_| malformed(file, what, text))
}

/// `12 kB` as bytes.
pub(super) fn kilobytes(file: &str, what: &str, text: &[u8]) -> Result<u64> {
    ascii(text)
        .and_then(|s| s.strip_suffix("kB"))
        .and_then(|s| s.trim_end().parse::<u64>().ok())
        .and_then(|kb| kb.checked_mul(1024))
        .ok_or_else(|| malformed(file, what, text))
}

/// `0` or `1`.
pub(super) fn flag(file: &str, what: &str, text: &[u8]) -> Result<bool> {
    match text.trim_ascii() {
        b"0" => Ok(false),
        b"1" => Ok(true),
        _ => Err(malformed(file, what, text)),
    }
}

/// A word or a sentence as text; bytes that aren't UTF-8 become U+FFFD.
pub(super) fn words(text: &[u8]) -> String {
    String::from_utf8_lossy(text.trim_ascii()).into_owned()
}

fn ascii(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text.trim_ascii()).ok()
}

/// The lines of a text, without their ends. An empty text has none.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|b| *b == b'\n').filter(|line| !line.is_empty())
}

/// A `Key:<blank>value` line: the key without its colon, the value without blanks around it.
pub(super) fn key_value(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, value) = split_once(line, b':')?;
    Some((key.trim_ascii(), value.trim_ascii()))
}

/// Splits at the first occurrence of a byte.
pub(super) fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let i = text.iter().position(|b| *b == at)?;
    Some((&text[..i], &text[i + 1..]))
}

/// The words of a line: what stands between runs of blanks.
pub(super) fn fields(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b' ' || *b == b'\t').filter(|word| !word.is_empty())
}

/// Undoes the kernel's octal escapes (`\040`) of these bytes alone. An escape of any other byte isn't the kernel's
/// doing and stays.
pub(super) fn unescape_octal(text: &[u8], escaped: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'\\'
            && let Some(digits) = after.first_chunk::<3>()
            && digits.iter().all(|d| (b'0'..=b'7').contains(d))
        {
            let value = digits.iter().fold(0u32, |v, d| v * 8 + u32::from(d - b'0'));
            if let Some(byte) = u8::try_from(value).ok().filter(|b| escaped.contains(b)) {
                out.push(byte);
                rest = &after[3..];
                continue;
            }
        }
        out.push(byte);
        rest = after;
    }
    out
}

/// The number that stat(2) gives for a device, from its major and minor number.
pub(super) fn device(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

/// `fe:00` as major and minor number, in the base the file uses.
pub(super) fn device_pair(file: &str, text: &[u8], base: u32) -> Result<(u32, u32)> {
    let bad = || malformed(file, "the device", text);
    let (major, minor) = split_once(text, b':').ok_or_else(bad)?;
    let part =
        |t| radix(file, "the device", t, base).ok().and_then(|n| u32::try_from(n).ok()).ok_or_else(bad);
    Ok((part(major)?, part(minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_own_escapes_are_undone() {
        assert_eq!(unescape_octal(br"a\012b\040c\\012\8", b"\n"), b"a\nb\\040c\\\n\\8");
        assert_eq!(unescape_octal(br"a\040b\134c\777\01", b" \\"), br"a b\c\777\01");
    }

    #[test]
    fn numbers_are_read_exactly() {
        assert_eq!(number::<u32>("f", "n", b" 12 ").ok(), Some(12));
        assert!(number::<u32>("f", "n", b"12x").is_err());
        assert!(radix("f", "n", b"+12", 16).is_err());
        assert_eq!(radix("f", "n", b"0x12", 16).ok(), Some(0x12));
        assert!(kilobytes("f", "n", b"18446744073709551615 kB").is_err());
        assert_eq!(
            number::<u32>("status", "Pid", b"x\n").unwrap_err().call,
            r#"status: Pid: "x\n" isn't understood"#
        );
    }
}
