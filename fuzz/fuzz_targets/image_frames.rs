//! The input is the header and frames of an image, to which this adds what a fuzzer can't guess: lengths, padding, links and
//! checksums. See docs/image-format.md.
//!
//! It begins with `length u8, header`; then comes a row of `type u8, flags u8, body length u16, data length u16, body, data`.

#![no_main]

mod every_way;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const TYPES: [&[u8; 4]; 6] = [b"RECD", b"PAGE", b"FAIL", b"INDX", b"SEAL", b"NEWS"];

fn cut<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(len.min(input.len()));
    *input = rest;
    taken
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let mut out = b"bardo\x89\r\n\x01\0\0\0".to_vec();
    let len = cut(&mut input, 1).first().map_or(0, |len| usize::from(*len));
    let header = cut(&mut input, len);
    out.extend((header.len() as u32).to_le_bytes());
    out.extend(xxh3_64(header).to_le_bytes());
    let mut link = xxh3_64(&out);
    out.extend(link.to_le_bytes());
    out.extend(header);
    let mut number = 0u32;
    while let [choice, flags, body_a, body_b, data_a, data_b] = *cut(&mut input, 6) {
        let kind = TYPES[usize::from(choice) % TYPES.len()];
        let body = cut(&mut input, usize::from(u16::from_le_bytes([body_a, body_b])));
        let data = cut(&mut input, usize::from(u16::from_le_bytes([data_a, data_b])));
        let start = out.len();
        let data_at = start + 48 + body.len();
        let raw = kind == b"PAGE" && flags & 2 == 0 && !data.is_empty();
        let pad = if raw { data_at.next_multiple_of(4096) - data_at } else { 0 };
        out.extend(kind);
        for value in [u32::from(flags), body.len() as u32, pad as u32, data.len() as u32, number] {
            out.extend(value.to_le_bytes());
        }
        out.extend(xxh3_64_with_seed(data, xxh3_64(body)).to_le_bytes());
        out.extend(link.to_le_bytes());
        link = xxh3_64(&out[start..]);
        out.extend(link.to_le_bytes());
        out.extend(body);
        out.resize(out.len() + pad, 0);
        out.extend(data);
        number += 1;
    }
    every_way::read(&out);
});
