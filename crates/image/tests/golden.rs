//! The golden image of format 1: whatever becomes of this crate, it must be read, and mean the same, for ever.
//!
//! A missing golden file is written by its test, which then fails: look at what it wrote, and check it in. A file that is
//! there is never written; if a test says that it differs, the reader is wrong, not the file.

mod support;

use bardo_image::{
    ErrorKind, Frame, Header, Outline, RandomAccess, Reader, Run, RunKind, Value, Writer, copy, show, verify,
};
use std::path::Path;

fn checked_in(name: &str, made: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::write(&path, made).unwrap();
            panic!("{name} wasn't there and has been written: look at it, and check it in");
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

fn golden() -> Vec<u8> {
    checked_in("format-1.bardo", &support::golden().encode())
}

fn outline() -> Outline {
    show(&golden()[..]).unwrap()
}

#[test]
fn the_golden_image_is_what_its_generator_makes() {
    assert_eq!(golden(), support::golden().encode());
    assert_eq!(support::RawImage::parse(&golden()), support::golden());
}

#[test]
fn its_outline_as_text_is_what_it_always_was() {
    let mut text = String::new();
    outline().render(&mut text).unwrap();
    assert_eq!(text, String::from_utf8(checked_in("format-1.txt", text.as_bytes())).unwrap());
}

#[test]
fn its_outline_as_json_is_what_it_always_was() {
    let json = serde_json::to_string_pretty(&outline()).unwrap() + "\n";
    assert_eq!(json, String::from_utf8(checked_in("format-1.json", json.as_bytes())).unwrap());
}

#[test]
fn its_pages_are_what_they_always_were() {
    let bytes = golden();
    let mut reader = Reader::open(&bytes[..]).unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        if let Frame::Pages(pages) = frame {
            frames.push(pages);
        }
    }
    let run = |at, pages, kind| Run { at, pages, kind };
    let image = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff".parse().unwrap();
    let source = RunKind::Parent { image, space: 7, at: 0x30000 };
    let mixed = [
        run(0x1000, 1, RunKind::Data),
        run(0x2000, 3, RunKind::Zero),
        run(0x8000, 1, RunKind::Data),
        run(0x10000, 2, source),
    ];
    assert_eq!((frames[0].space, &frames[0].runs[..]), (1, &mixed[..]));
    assert_eq!(frames[0].data, [support::page(1), support::page(2)].concat());
    assert_eq!((frames[1].space, &frames[1].runs[..]), (1, &[run(0x8000, 1, RunKind::Data)][..]));
    assert_eq!(frames[1].data, [0xab; 4096]);
    assert_eq!((frames[2].space, &frames[2].runs[..]), (2, &[run(0, 1 << 20, RunKind::Zero)][..]));
    assert!(frames[2].data.is_empty());
    assert_eq!(frames.len(), 3);

    // Out of order, the index leads to the same pages.
    let file = RandomAccess::open(&bytes[..]).unwrap();
    assert_eq!(file.summary(), reader.summary());
    let found: Vec<_> = [1, 2].iter().flat_map(|space| file.pages_of(*space)).collect();
    assert_eq!(found.iter().map(|at| file.pages(at).unwrap()).collect::<Vec<_>>(), frames);
    let stored = file.locate(found[0]).unwrap();
    assert_eq!((stored.data_at % 4096, stored.data_len, stored.zstd), (0, 8192, false));
    let at = stored.data_at as usize;
    assert_eq!(bytes[at..at + 8192], frames[0].data);
    assert!(file.locate(found[1]).unwrap().zstd);
    assert!(file.pages_of(3).is_empty());
}

#[test]
fn a_copy_is_the_same_to_the_byte_with_all_that_we_do_not_know() {
    let bytes = golden();
    let (copied, summary) = copy(Reader::open(&bytes[..]).unwrap(), Vec::new()).unwrap();
    assert_eq!(copied, bytes);
    assert_eq!(summary, verify(&bytes[..], |_| ()).unwrap());
}

#[test]
fn unknown_fields_are_kept_where_they_are_decoded() {
    let outline = outline();
    let mood = Value::Tag(1234, Box::new(Value::Array(vec![Value::Null, Value::Float(0.5)])));
    assert_eq!(outline.header.extra["mood"], mood);
    assert_eq!(outline.header.host.extra["firmware"], Value::from("a field of tomorrow"));
    assert_eq!(outline.records[1].extra["since"], Value::from("a field of tomorrow"));
    // A header that went through our types is written again with them.
    let again = Writer::begin(Vec::new(), &outline.header).unwrap().seal().unwrap().0;
    assert_eq!(Reader::open(&again[..]).unwrap().header(), &outline.header);
}

/// The crate's writer against the encoder made from the specification.
#[test]
fn the_writer_writes_what_the_specification_says() {
    let value = support::header(true);
    let header: Header = value.deserialized().unwrap();
    let parent = header.parent.unwrap();
    let mut writer = Writer::begin(Vec::new(), &header).unwrap();
    let body = Value::from("a body");
    writer.record("thing", 77, &body).unwrap();
    let data = [support::page(5), support::page(6)].concat();
    let run = |at, pages, kind| Run { at, pages, kind };
    let source = RunKind::Parent { image: parent, space: 9, at: 0x4000 };
    let runs = [run(0, 2, RunKind::Data), run(0x2000, 1, RunKind::Zero), run(0x9000, 4, source)];
    writer.pages(12, &runs, &data).unwrap();
    writer.pages(12, &[run(0x100000, 1, RunKind::Zero)], &[]).unwrap();
    writer.record("thing", 78, &body).unwrap();
    let (written, _) = writer.seal().unwrap();

    let mut expected = support::RawImage::parse(&written);
    let raw_runs =
        [(0, 2, 0, None), (0x2000, 1, 1, None), (0x9000, 4, 2, Some((parent.as_bytes(), 9, 0x4000)))];
    expected.frames = vec![
        support::record("thing", 77, body.clone()),
        support::pages(12, &raw_runs, 0, data),
        support::pages(12, &[(0x100000, 1, 1, None)], 0, Vec::new()),
        support::record("thing", 78, body),
    ];
    assert!(expected.sealed().encode() == written, "the writer and the specification differ");
}

#[test]
fn a_newer_format_is_refused_as_that() {
    let mut image = support::golden();
    image.format = 2;
    let error = show(&image.encode()[..]).unwrap_err();
    assert_eq!((error.kind(), error.position()), (ErrorKind::Newer, 8));
    assert_eq!(
        error.to_string(),
        "image of a newer bardo: byte 8: its format is version 2, and this bardo reads up to 1"
    );
    assert_eq!(RandomAccess::open(&image.encode()[..]).err().unwrap().kind(), ErrorKind::Newer);
}

#[test]
fn unknown_frames_are_skipped_only_if_they_may_be() {
    let mut image = support::golden();
    let place = image.frames.iter().position(|frame| &frame.kind == b"XTRA").unwrap();
    image.frames[place].flags = support::IGNORABLE | 0x40;
    verify(&image.clone().sealed().encode()[..], |_| ()).unwrap();
    image.frames[place].flags = 0;
    let (bytes, offsets) = image.sealed().encode_with_offsets();
    let error = verify(&bytes[..], |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Newer);
    assert_eq!((error.position(), error.frame()), (offsets[place] as u64, Some(place as u64)));
    assert!(error.what().contains("type XTRA"), "{error}");
}

#[test]
fn an_unknown_flag_of_a_known_frame_is_a_newer_bardos() {
    let mut image = support::golden();
    image.frames[0].flags = 0x80;
    let error = verify(&image.sealed().encode()[..], |_| ()).unwrap_err();
    assert_eq!((error.kind(), error.frame()), (ErrorKind::Newer, Some(0)));
}

/// The specification explains the golden image byte by byte: each of its dumped lines is that image's.
#[test]
fn the_specification_shows_the_golden_image() {
    let text = include_str!("../../../docs/image-format.md");
    let bytes = golden();
    let mut shown = 0;
    for line in text.lines() {
        let digits = |text: &str| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Some((place, rest)) = line.split_once("  ").filter(|(place, _)| digits(place)) else { continue };
        let at = usize::from_str_radix(place, 16).unwrap();
        let hex = rest.split("  ").next().unwrap().trim();
        let line: Vec<u8> = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        assert_eq!(line, bytes[at..at + line.len()], "at {place}");
        shown += line.len();
    }
    assert_eq!(shown, 0x300 + bytes.len() - 0x3000);
}
