//! The input is an image, whole or not.

#![no_main]

mod every_way;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    every_way::read(bytes);
});
