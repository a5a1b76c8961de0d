//! What goes in comes out, whatever the stream is: a buffer, a pipe, a file, or one that gives a byte at a time and fails.

mod support;

use bardo_image::{
    Blob, ErrorKind, Fields, Frame, Header, Host, Identity, PAGE, Packer, Pages, PreparedPages, RandomAccess,
    Reader, Record, Run, RunKind, Value, Writer, copy, is_zero, prepare_owned, prepare_pages, show, verify,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

fn header() -> Header {
    Header::new("bardo test").unwrap()
}

fn run(at: u64, pages: u32, kind: RunKind) -> Run {
    Run { at, pages, kind }
}

fn all(stream: impl Read) -> (Vec<Record>, Vec<Pages>) {
    let mut reader = Reader::open(stream).unwrap();
    let (mut records, mut pages) = (Vec::new(), Vec::new());
    while let Some(frame) = reader.next().unwrap() {
        match frame {
            Frame::Record(record) => records.push(record),
            Frame::Pages(frame) => pages.push(frame),
        }
    }
    (records, pages)
}

/// Everything that a record's type may be made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Rich {
    small: u8,
    large: u64,
    negative: i64,
    huge: u128,
    float: f64,
    flag: bool,
    text: String,
    letter: char,
    maybe: Option<u32>,
    bytes: Blob,
    list: Vec<(u32, String)>,
    map: BTreeMap<String, Choice>,
    choice: Choice,
    wrapped: Wrapped,
    unit: (),
    identity: Identity,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wrapped(i32);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Choice {
    Plain,
    One(u64),
    Two(i8, String),
    Named { pid: u32, blob: Blob },
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        Just(Choice::Plain),
        any::<u64>().prop_map(Choice::One),
        any::<(i8, String)>().prop_map(|(a, b)| Choice::Two(a, b)),
        any::<(u32, Vec<u8>)>().prop_map(|(pid, blob)| Choice::Named { pid, blob: Blob(blob) }),
    ]
}

prop_compose! {
    fn rich()(
        numbers in any::<(u8, u64, i64, u128, bool, i32)>(), float in -1e300..1e300f64, text in any::<String>(),
        letter in any::<char>(), maybe in any::<Option<u32>>(), bytes in any::<Vec<u8>>(),
        list in any::<Vec<(u32, String)>>(), map in prop::collection::btree_map(any::<String>(), choice(), 0..5),
        choice in choice(), identity in any::<[u8; 16]>(),
    ) -> Rich {
        let (small, large, negative, huge, flag, wrapped) = numbers;
        Rich {
            small, large, negative, huge, float, flag, text, letter, maybe, bytes: Blob(bytes), list, map, choice,
            wrapped: Wrapped(wrapped), unit: (), identity: Identity::from_bytes(identity),
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        any::<Vec<u8>>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((inner.clone(), inner.clone()), 0..6).prop_map(Value::Map),
            (100..1000u64, inner).prop_map(|(tag, value)| Value::Tag(tag, Box::new(value))),
        ]
    })
}

fn fields() -> impl Strategy<Value = Fields> {
    prop::collection::btree_map("x_[a-z]{1,8}", value(), 0..4)
}

prop_compose! {
    fn headers()(
        ids in any::<([u8; 16], Option<[u8; 16]>)>(), created in any::<u64>(), writer in any::<String>(),
        command in any::<String>(), host in any::<(String, String, u32, Vec<String>)>(),
        (summary, extra, more) in (fields(), fields(), fields()),
    ) -> Header {
        let (arch, kernel, page_size, cpu) = host;
        Header {
            identity: Identity::from_bytes(ids.0), parent: ids.1.map(Identity::from_bytes), created_unix_ns: created,
            writer, command, host: Host { arch, kernel, page_size, cpu, extra: more }, summary, extra,
        }
    }
}

#[derive(Debug, Clone)]
enum Part {
    Record(String, u64, Value),
    Pages { space: u64, runs: Vec<Run>, data: Vec<u8>, packed: bool },
}

prop_compose! {
    fn page_part()(
        space in 0..4u64, packed in any::<bool>(), seed in any::<u64>(),
        steps in prop::collection::vec((0..5u64, 1..6u32, 0..3u8, any::<([u8; 16], u64)>()), 1..12),
    ) -> Part {
        let (mut at, mut runs, mut data) = (0, Vec::new(), Vec::new());
        for (gap, pages, kind, (image, from)) in steps {
            at += gap * PAGE as u64;
            let source = RunKind::Parent { image: Identity::from_bytes(image), space: from, at: (from >> 20) << 12 };
            let kind = [RunKind::Data, RunKind::Zero, source][kind as usize];
            runs.push(run(at, pages, kind));
            at += u64::from(pages) * PAGE as u64;
            if kind == RunKind::Data {
                let bytes = (0..pages as usize * PAGE).map(|i| ((seed >> (i % 7)) as u8).wrapping_mul((i / 97) as u8));
                data.extend(bytes);
            }
        }
        Part::Pages { space, runs, data, packed }
    }
}

fn part() -> impl Strategy<Value = Part> {
    let record =
        ("[a-z/]{1,20}", any::<u64>(), value()).prop_map(|(kind, id, body)| Part::Record(kind, id, body));
    prop_oneof![record, page_part()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_record_reads_as_it_was_written(rich in rich()) {
        let mut writer = Writer::begin(Vec::new(), &header()).unwrap();
        writer.record("rich", 5, &rich).unwrap();
        let image = writer.seal().unwrap().0;
        let (records, _) = all(&image[..]);
        prop_assert_eq!(records[0].read::<Rich>().unwrap(), rich);
    }

    #[test]
    fn an_image_reads_as_it_was_written(mut header in headers(), parts in prop::collection::vec(part(), 0..12)) {
        header.parent.get_or_insert(Identity::from_bytes([9; 16]));
        let mut packer = Packer::new(1).unwrap();
        let mut writer = Writer::begin(Vec::new(), &header).unwrap();
        for part in &parts {
            match part {
                Part::Record(kind, id, body) => writer.record(kind, *id, body).unwrap(),
                Part::Pages { space, runs, data, packed: true } => {
                    writer.pages_packed(&mut packer, *space, runs, data).unwrap();
                }
                Part::Pages { space, runs, data, .. } => writer.pages(*space, runs, data).unwrap(),
            }
        }
        let (image, summary) = writer.seal().unwrap();
        prop_assert_eq!(image.len() as u64, summary.bytes);
        prop_assert_eq!(verify(&image[..], |_| ()).unwrap(), summary);

        let mut reader = Reader::open(&image[..]).unwrap();
        prop_assert_eq!(reader.header(), &header);
        let file = RandomAccess::open(&image[..]).unwrap();
        prop_assert_eq!(file.summary(), summary);
        let mut places = file.records().iter();
        let mut per_space = BTreeMap::<u64, usize>::new();
        for part in &parts {
            match (part, reader.next().unwrap().unwrap()) {
                (Part::Record(kind, id, body), Frame::Record(record)) => {
                    prop_assert_eq!((kind, id, body), (&record.kind, &record.id, &record.body));
                    prop_assert_eq!(file.record(places.next().unwrap()).unwrap(), record);
                }
                (Part::Pages { space, runs, data, packed }, Frame::Pages(pages)) => {
                    prop_assert_eq!((*space, runs, data), (pages.space, &pages.runs, &pages.data));
                    let nth = per_space.entry(*space).or_default();
                    let at = &file.pages_of(*space)[*nth];
                    *nth += 1;
                    prop_assert_eq!(&file.pages(at).unwrap(), &pages);
                    let stored = file.locate(at).unwrap();
                    prop_assert!(*packed || !stored.zstd);
                    if !stored.zstd && !data.is_empty() {
                        prop_assert_eq!(stored.data_at % PAGE as u64, 0);
                        let from = stored.data_at as usize;
                        prop_assert_eq!(&image[from..from + data.len()], &data[..]);
                    }
                    reader.recycle(pages);
                }
                (part, frame) => prop_assert!(false, "{:?} became {:?}", part, frame),
            }
        }
        prop_assert!(reader.next().unwrap().is_none());
        prop_assert!(reader.next().unwrap().is_none());
        let (copied, again) = copy(Reader::open(&image[..]).unwrap(), Vec::new()).unwrap();
        prop_assert_eq!(again, summary);
        prop_assert!(copied == image);
        let outline = show(&image[..]).unwrap();
        prop_assert_eq!(outline.summary, summary);
        serde_json::to_value(&outline).unwrap();
    }

    #[test]
    fn a_page_is_zero_if_all_its_bytes_are(len in 0..9000usize, at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut bytes = vec![0; len];
        prop_assert!(is_zero(&bytes));
        if len > 0 {
            bytes[at.index(len)] = 1 << bit;
            prop_assert!(!is_zero(&bytes));
        }
    }

    #[test]
    fn identities_are_text_and_back(bytes in any::<[u8; 16]>()) {
        let identity = Identity::from_bytes(bytes);
        prop_assert_eq!(identity.to_string().len(), 32);
        prop_assert_eq!(identity.to_string().parse(), Ok(identity));
    }
}

fn sample(sink: impl Write) -> io::Result<()> {
    let mut writer = Writer::begin(sink, &header())?;
    for i in 0..40 {
        writer.record("thing", i, &format!("thing number {i}"))?;
        let data = support::page(i as u8).repeat(20);
        writer.pages(
            i % 3,
            &[run(i << 20, 20, RunKind::Data), run(i << 20 | 20 << 12, 4, RunKind::Zero)],
            &data,
        )?;
    }
    writer.seal()?;
    Ok(())
}

#[test]
fn an_image_passes_through_a_pipe() {
    let (from, to) = io::pipe().unwrap();
    let writing = std::thread::spawn(move || sample(to).unwrap());
    let (records, pages) = all(from);
    writing.join().unwrap();
    assert_eq!((records.len(), pages.len()), (40, 40));
    assert_eq!(records[39].read::<String>().unwrap(), "thing number 39");
    assert_eq!(pages[7].data, support::page(7).repeat(20));
}

/// The header is out before the first frame is made: who waits for the image learns at once what it will be.
#[test]
fn the_header_arrives_first() {
    let (from, to) = io::pipe().unwrap();
    let header = header();
    let writer = Writer::begin(to, &header).unwrap();
    assert_eq!(Reader::open(from).unwrap().header(), &header);
    drop(writer);
}

#[test]
fn a_stream_may_come_in_crumbs() {
    struct Crumbs<'a>(&'a [u8], usize);
    impl Read for Crumbs<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(3) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let len = into.len().min(self.1 % 7);
            self.0.read(&mut into[..len.max(1)])
        }
    }
    struct Drips(Vec<u8>, usize);
    impl Write for Drips {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(3) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            self.0.write(&bytes[..bytes.len().min(1 + self.1 % 5000)])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut drips = Drips(Vec::new(), 0);
    sample(&mut drips).unwrap();
    let (records, pages) = all(Crumbs(&drips.0, 0));
    assert_eq!((records.len(), pages.len()), (40, 40));
}

/// A sink that takes `left` bytes and then has no room.
struct Full {
    left: usize,
    kept: Vec<u8>,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.left);
        if len == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.left -= len;
        self.kept.extend(&bytes[..len]);
        Ok(len)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_never_leaves_an_image_that_passes_for_whole() {
    let mut whole = Vec::new();
    sample(&mut whole).unwrap();
    for room in (0..whole.len()).step_by(1009).chain([whole.len() - 1]) {
        let mut sink = Full { left: room, kept: Vec::new() };
        assert_eq!(sample(&mut sink).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(
            verify(&sink.kept[..], |_| ()).unwrap_err().kind(),
            ErrorKind::Truncated,
            "room for {room}"
        );
    }
    let mut exact = Full { left: whole.len(), kept: Vec::new() };
    sample(&mut exact).unwrap();
    verify(&exact.kept[..], |_| ()).unwrap();
}

#[test]
fn after_a_failed_write_nothing_more_is_written() {
    let header = header();
    let mut sink = Full { left: 10_000, kept: Vec::new() };
    let mut writer = Writer::begin(&mut sink, &header).unwrap();
    let data = vec![1; 1 << 20];
    let runs = [run(0, 256, RunKind::Data)];
    assert_eq!(writer.pages(1, &runs, &data).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(writer.pages(1, &runs, &data).unwrap_err().to_string().contains("after a failed write"));
    assert!(writer.fail("no room").is_err());
    assert_eq!(sink.kept.len(), 10_000);
}

#[test]
fn a_reader_tells_a_failing_stream_from_a_short_one() {
    struct Broken<'a>(&'a [u8]);
    impl Read for Broken<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.0.read(into)? {
                0 => Err(io::ErrorKind::ConnectionReset.into()),
                got => Ok(got),
            }
        }
    }
    let mut image = Vec::new();
    sample(&mut image).unwrap();
    let mut reader = Reader::open(Broken(&image[..200_000])).unwrap();
    let error = loop {
        match reader.next() {
            Ok(frame) => assert!(frame.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), error.position()), (ErrorKind::Io(io::ErrorKind::ConnectionReset), 200_000));
    // Asked again, it says the same: an error never turns into an end.
    assert_eq!(reader.next().unwrap_err(), error);
    assert_eq!(reader.next().unwrap_err(), error);
}

#[test]
fn a_failed_checkpoint_says_why_in_the_image() {
    let mut writer = Writer::begin(Vec::new(), &header()).unwrap();
    writer.record("process", 1, &"half of it").unwrap();
    let image = writer.fail("pid 4127 died while its memory was read").unwrap();
    let error = verify(&image[..], |_| ()).unwrap_err();
    assert_eq!((error.kind(), error.frame()), (ErrorKind::Incomplete, Some(1)));
    assert!(error.to_string().ends_with("failed: pid 4127 died while its memory was read"), "{error}");
    // What came before is there to be seen.
    let outline = show(&image[..]).unwrap();
    assert_eq!((outline.records.len(), outline.error()), (1, Some(&error)));
    let mut text = String::new();
    outline.render(&mut text).unwrap();
    assert!(text.contains("NOT WHOLE: incomplete image: byte"), "{text}");
    let json = serde_json::to_value(&outline).unwrap();
    assert_eq!(json["trouble"]["kind"], "incomplete");
    assert_eq!(json["trouble"]["frame"], 1);
}

#[test]
fn frames_prepared_on_other_threads_are_the_same_image() {
    let data: Vec<Vec<u8>> = (0..8).map(|i| support::page(i).repeat(64)).collect();
    let runs = |i: usize| [run((i as u64) << 20, 64, RunKind::Data)];
    let header = header();
    for level in [None, Some(1)] {
        let prepared: Vec<PreparedPages> = std::thread::scope(|scope| {
            let threads: Vec<_> = (data.iter().enumerate())
                .map(|(i, data)| scope.spawn(move || prepare_pages(3, &runs(i), data, level)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut writer = Writer::begin(Vec::new(), &header).unwrap();
        prepared.iter().for_each(|frame| writer.write_prepared(frame).unwrap());
        let there = writer.seal().unwrap();
        let mut writer = Writer::begin(Vec::new(), &header).unwrap();
        for (i, data) in data.iter().enumerate() {
            writer.write_prepared(&prepare_pages(3, &runs(i), data, level).into_owned()).unwrap();
        }
        assert!(there == writer.seal().unwrap());
        // With data that goes along, the caller's memory comes back: at once if packed, else from the frame.
        let mut writer = Writer::begin(Vec::new(), &header).unwrap();
        let mut packer = level.map(|level| Packer::new(level).unwrap());
        for (i, data) in data.iter().enumerate() {
            let place = data.clone();
            let address = place.as_ptr();
            let (frame, spare) = prepare_owned(3, &runs(i), place, packer.as_mut());
            writer.write_prepared(&frame).unwrap();
            assert_eq!(spare.is_some(), level.is_some());
            let place = spare.or(frame.into_data()).unwrap();
            assert_eq!(place.as_ptr(), address);
        }
        assert!(there == writer.seal().unwrap());
        assert_eq!(there.1.page_bytes, 8 * 64 * 4096);
        // These pages repeat themselves: zstd earns its keep.
        let stored = there.1.page_bytes_stored;
        assert!(
            if level.is_some() { stored < there.1.page_bytes / 8 } else { stored == there.1.page_bytes },
            "{stored}"
        );
        assert_eq!(
            all(&there.0[..]).1.iter().map(|pages| &pages.data).collect::<Vec<_>>(),
            data.iter().collect::<Vec<_>>()
        );
    }
}

#[test]
fn pages_that_do_not_compress_are_stored_as_they_are() {
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(65536)
    .collect();
    let prepared = prepare_pages(1, &[run(0, 16, RunKind::Data)], &noise, Some(3));
    assert_eq!(prepared.stored(), noise.len());
    let mut writer = Writer::begin(Vec::new(), &header()).unwrap();
    writer.write_prepared(&prepared).unwrap();
    let image = writer.seal().unwrap().0;
    let file = RandomAccess::open(&image[..]).unwrap();
    assert!(!file.locate(&file.pages_of(1)[0]).unwrap().zstd);
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let mut writer = Writer::begin(Vec::new(), &header()).unwrap();
    let refused = |result: io::Result<()>, what: &str| {
        let error = result.unwrap_err();
        assert!(error.to_string().contains(what), "{what}: {error}");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    };
    let page = [1; PAGE];
    refused(writer.pages(1, &[run(0, 1, RunKind::Data)], &[]), "0 bytes of data for runs of 4096");
    refused(writer.pages(1, &[run(0, 1, RunKind::Zero)], &page), "4096 bytes of data for runs of 0");
    refused(writer.pages(1, &[], &page), "0 runs");
    refused(writer.pages(1, &[run(4096, 1, RunKind::Zero), run(0, 1, RunKind::Zero)], &[]), "begins before");
    refused(writer.pages(1, &[run(0, 1025, RunKind::Data)], &vec![1; 1025 * PAGE]), "which holds");
    let source = RunKind::Parent { image: Identity::from_bytes([1; 16]), space: 1, at: 0 };
    refused(writer.pages(1, &[run(0, 1, source)], &[]), "a parent in an image that has none");
    refused(writer.record("", 1, &0), "1 to 255 bytes");
    refused(writer.record(&"k".repeat(256), 1, &0), "1 to 255 bytes");
    refused(writer.record("big", 1, &Blob(vec![0; 16 << 20])), "is the most");
    refused(writer.record("many", 1, &vec![0; 1 << 20]), "more than 1048576 CBOR items");
    let deep = (0..64).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    refused(writer.record("deep", 1, &deep), "nested more than 64 deep");
    // None of it has left a trace, and the largest that is allowed is written and read.
    writer.record("big", 1, &Blob(vec![7; (16 << 20) - 64])).unwrap();
    writer.record("many", 2, &vec![0; (1 << 20) - 8]).unwrap();
    let deep = (0..63).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    writer.record("deep", 3, &deep).unwrap();
    writer.pages(1, &[run(0, 1024, RunKind::Data)], &vec![1; 1024 * PAGE]).unwrap();
    writer.pages(1, &[], &[]).unwrap();
    let (image, summary) = writer.seal().unwrap();
    assert_eq!((summary.records, summary.frames), (3, 6));
    let (records, pages) = all(&image[..]);
    assert_eq!(records[0].read::<Blob>().unwrap().len(), (16 << 20) - 64);
    assert_eq!(records[1].read::<Vec<u8>>().unwrap().len(), (1 << 20) - 8);
    assert_eq!((&records[2].body, pages.len()), (&deep, 1));
}

/// More entries than one index frame holds.
#[test]
fn a_long_index_is_split() {
    let mut writer = Writer::begin(Vec::new(), &header()).unwrap();
    for i in 0..60_000u64 {
        writer.pages(i % 5, &[run(i * PAGE as u64, 1, RunKind::Zero)], &[]).unwrap();
    }
    let (image, summary) = writer.seal().unwrap();
    assert_eq!(summary.frames, 60_000 + 3 + 1);
    assert_eq!(verify(&image[..], |_| ()).unwrap(), summary);
    let file = RandomAccess::open(&image[..]).unwrap();
    assert_eq!(file.pages_of(4).len(), 12_000);
    assert_eq!(file.pages_of(4)[11_999].first, 59_999 * PAGE as u64);
}

/// serde's `flatten` and RFC 8949 know maps whose length isn't told beforehand.
#[test]
fn a_map_may_end_with_a_break() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Open {
        pid: u32,
        #[serde(flatten)]
        rest: BTreeMap<String, u64>,
    }
    let open = Open { pid: 7, rest: BTreeMap::from([("nice".into(), 5)]) };
    let mut writer = Writer::begin(Vec::new(), &header()).unwrap();
    writer.record("process", 1, &open).unwrap();
    let image = writer.seal().unwrap().0;
    assert!(image.windows(5).any(|bytes| bytes == b"\xbfcpid"));
    assert_eq!(all(&image[..]).0[0].read::<Open>().unwrap(), open);
}

/// A type that has grown since, and one that has lost a field.
#[test]
fn a_record_of_another_version_is_read_as_far_as_it_goes() {
    #[derive(Serialize)]
    struct Newer {
        pid: u32,
        shoe_size: u8,
    }
    #[derive(Debug, Deserialize)]
    struct Older {
        pid: u32,
        #[serde(default)]
        nice: i8,
    }
    #[derive(Debug, Deserialize)]
    struct Strict {
        #[expect(dead_code, reason = "it can't be read")]
        comm: String,
    }
    let mut writer = Writer::begin(Vec::new(), &header()).unwrap();
    writer.record("process", 9, &Newer { pid: 7, shoe_size: 43 }).unwrap();
    let image = writer.seal().unwrap().0;
    let record = &all(&image[..]).0[0];
    let older: Older = record.read().unwrap();
    assert_eq!((older.pid, older.nice), (7, 0));
    let error = record.read::<Strict>().unwrap_err();
    assert_eq!((error.kind(), error.frame(), error.position()), (ErrorKind::Record, Some(0), record.at));
    assert!(error.what().contains("the record process 9") && error.what().contains("comm"), "{error}");
}

#[test]
fn a_terminal_is_safe_from_what_an_image_says() {
    let mut header = header();
    header.command = "evil \x1b]0;owned\x07 \u{202e}name\n".into();
    let mut writer = Writer::begin(Vec::new(), &header).unwrap();
    writer.record("\x1b[2J", 1, &BTreeMap::from([("key\r", "\u{9b}value")])).unwrap();
    let image = writer.seal().unwrap().0;
    let mut text = String::new();
    show(&image[..]).unwrap().render(&mut text).unwrap();
    let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!text.contains(bad), "{text:?}");
    assert!(text.contains("evil \\u{1b}]0;owned\\u{7} \\u{202e}name\\u{a}\n"), "{text}");
}
