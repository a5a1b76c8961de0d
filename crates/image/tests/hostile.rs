//! Images as an enemy, a bad disk or a cut connection leaves them. Nothing may panic, take memory that the input doesn't
//! justify, or pass for whole; and the error names the place.
//!
//! Two sorts of damage. Bytes changed at random must always be noticed: the checksums see to that. Images that break a rule
//! *with right checksums* get past those to the code behind; some of them are sound, and the rest must be refused with care.
//! The mutations are made by a fixed generator, so a failure names a number that brings it back.

mod support;

use bardo_image::{
    BODY_MAX, DATA_MAX, Error, ErrorKind, Frame, RandomAccess, Reader, Summary, copy, show, verify,
};
use ciborium::{Value, cbor};
use peak_alloc::PeakAlloc;
use std::sync::{Mutex, MutexGuard};
use support::{HEAD, IGNORABLE, PREAMBLE, RawImage, ZSTD, frame, golden, pages, record};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;
/// Memory is counted for the whole process, so tests that look at the count take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The most memory that was in use during `work` beyond what was before.
fn memory_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = work();
    (result, MEMORY.peak_usage().saturating_sub(before))
}

/// What reading may take: the fixed buffers (the largest is that for one frame's unpacked pages), and for each byte of the
/// input what a decoded CBOR item of one byte takes (a map's entry: two values), with room for growing vectors.
fn allowed(input: usize) -> usize {
    DATA_MAX + (1 << 20) + 128 * input
}

/// Reads an image in every way there is; what the plain reader says is the result.
fn read_every_way(bytes: &[u8]) -> Result<Summary, Error> {
    let plain = (|| {
        let mut reader = Reader::open(bytes)?;
        while let Some(frame) = reader.next()? {
            match frame {
                Frame::Record(record) => drop(record.read::<Vec<u64>>()),
                Frame::Pages(pages) => {
                    assert_eq!(pages.iter().map(|(_, pages)| pages.len()).sum::<usize>(), pages.data.len());
                    reader.recycle(pages);
                }
            }
        }
        assert!(reader.next().unwrap().is_none());
        Ok(reader.summary())
    })();
    assert_eq!(verify(bytes, |at| assert!(at <= bytes.len() as u64)), plain);
    match copy_of(bytes) {
        Ok(copied) => {
            assert_eq!(verify(&copied[..], |_| ()).unwrap().page_bytes, plain.clone().unwrap().page_bytes)
        }
        Err(error) => assert_eq!(Err(error), plain),
    }
    match show(bytes) {
        Ok(outline) => {
            assert_eq!(outline.error(), plain.as_ref().err());
            let mut text = String::new();
            outline.render(&mut text).unwrap();
            serde_json::to_string(&outline).unwrap();
        }
        Err(error) => assert_eq!(Err(error), plain),
    }
    let file = read_out_of_order(bytes);
    if plain.is_ok() {
        file.unwrap();
    }
    if let Err(error) = &plain {
        assert!(error.position() <= bytes.len() as u64, "{error}");
        assert!(!error.what().is_empty());
    }
    plain
}

fn copy_of(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    copy(Reader::open(bytes)?, Vec::new()).map(|(copied, _)| copied)
}

fn read_out_of_order(bytes: &[u8]) -> Result<(), Error> {
    let file = RandomAccess::open(bytes)?;
    let mut result = Ok(());
    for at in file.records() {
        result = result.and(file.record(at).map(drop));
    }
    for at in file.pages_everywhere() {
        result = result.and(file.pages(at).map(drop)).and(file.locate(at).map(drop));
    }
    result
}

/// The place of each part of an image: the preamble and header, and each frame.
fn places(image: &RawImage) -> (Vec<u8>, Vec<usize>) {
    image.encode_with_offsets()
}

/// The number of the frame that byte `at` belongs to.
fn frame_of(offsets: &[usize], at: usize) -> Option<u64> {
    (offsets.partition_point(|start| *start <= at) as u64).checked_sub(1)
}

/// xorshift64*: enough to choose places with, and the same everywhere.
struct Choice(u64);

impl Choice {
    fn of(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n.max(1) as u64) as usize
    }

    fn number(&mut self) -> u32 {
        match self.of(6) {
            0 => self.of(8) as u32,
            1 => u32::MAX - self.of(8) as u32,
            2 => (1u32 << self.of(32)).wrapping_add(self.of(3) as u32).wrapping_sub(1),
            3 => BODY_MAX as u32 + self.of(3) as u32 - 1,
            4 => 4096 * self.of(5) as u32,
            _ => self.of(1 << 31) as u32,
        }
    }
}

#[test]
fn an_image_that_ends_early_is_truncated_there_wherever_it_ends() {
    let _turn = turn();
    let (bytes, offsets) = places(&golden());
    for len in 0..bytes.len() {
        let (result, memory) = memory_of(|| verify(&bytes[..len], |_| ()));
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Truncated, "cut at {len}: {error}");
        assert_eq!(error.position(), len as u64, "{error}");
        // A cut between two frames is reported at the frame that should come next.
        assert_eq!(error.frame(), frame_of(&offsets, len), "{error}");
        assert!(memory <= allowed(len), "cut at {len}: {memory} bytes");
        assert!(read_out_of_order(&bytes[..len]).is_err(), "cut at {len}");
    }
    assert!(read_every_way(&bytes).is_ok());
}

#[test]
fn a_changed_byte_is_found_in_the_frame_it_is_in() {
    let _turn = turn();
    let (bytes, offsets) = places(&golden());
    for at in 0..bytes.len() {
        for bit in [1 << (at % 8), 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= bit;
            let error = verify(&bytes[..], |_| ()).expect_err("a changed byte was not noticed");
            assert_eq!(error.frame(), frame_of(&offsets, at), "byte {at}: {error}");
            let kind = if at < 8 { ErrorKind::NotAnImage } else { ErrorKind::Damaged };
            assert_eq!(error.kind(), kind, "byte {at}: {error}");
            assert!(error.position() <= at as u64, "byte {at}: {error}");
        }
    }
}

#[test]
fn sixty_thousand_random_changes_are_all_noticed() {
    let _turn = turn();
    let (original, _) = places(&golden());
    let mut choice = Choice(1);
    for round in 0..60_000 {
        let mut bytes = original.clone();
        for _ in 0..=choice.of(3) {
            let (a, b) = (choice.of(bytes.len()), choice.of(bytes.len()));
            let len = if choice.of(2) == 0 { choice.of(64) } else { choice.of(bytes.len()) };
            let range = a..(a + len).min(bytes.len());
            match choice.of(6) {
                0 => bytes[a] ^= 1 << choice.of(8),
                1 => drop(bytes.drain(range)),
                2 => {
                    let part = bytes[range].to_vec();
                    bytes.splice(b..b, part);
                }
                3 => {
                    let noise: Vec<u8> = (0..choice.of(64)).map(|_| choice.of(256) as u8).collect();
                    bytes.splice(b..b, noise);
                }
                4 => {
                    let part = bytes[range].to_vec();
                    let end = (b + part.len()).min(bytes.len());
                    bytes[b..end].copy_from_slice(&part[..end - b]);
                }
                _ => {
                    let number = choice.number().to_le_bytes();
                    let end = (a + 4).min(bytes.len());
                    bytes[a..end].copy_from_slice(&number[..end - a]);
                }
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        if bytes == original {
            continue;
        }
        // All the ways of reading share one reader; the dear ones needn't see every round.
        let (result, memory) =
            memory_of(|| if round % 16 == 0 { read_every_way(&bytes) } else { verify(&bytes[..], |_| ()) });
        let error = result.expect_err(&format!("round {round} was not noticed"));
        assert!(error.position() <= bytes.len() as u64, "round {round}: {error}");
        // `show` and the copy hold what they make; reading alone holds one frame.
        let allowed = if round % 16 == 0 { 2 * allowed(bytes.len()) } else { allowed(bytes.len()) };
        assert!(memory <= allowed, "round {round}: {memory} bytes");
    }
}

#[test]
fn sixty_thousand_broken_images_with_right_checksums_are_refused_with_care() {
    let _turn = turn();
    let mut choice = Choice(2);
    let mut whole = 0;
    let mut refused = std::collections::BTreeMap::<String, u32>::new();
    for round in 0..60_000 {
        let mut image = golden();
        for _ in 0..=choice.of(2) {
            mutate(&mut image, &mut choice);
        }
        if choice.of(2) == 0 {
            image = image.sealed();
        }
        let bytes = image.encode();
        let (result, memory) =
            memory_of(|| if round % 8 == 0 { read_every_way(&bytes) } else { verify(&bytes[..], |_| ()) });
        assert!(memory <= 2 * allowed(bytes.len()), "round {round}: {memory} bytes for {}", bytes.len());
        match result {
            Ok(_) => whole += 1,
            Err(error) => {
                assert!(error.position() <= bytes.len() as u64, "round {round}: {error}");
                *refused.entry(format!("{:?}", error.kind())).or_default() += 1;
            }
        }
    }
    // The mutations must reach what they are meant to reach: every kind of refusal, and images that are sound.
    for kind in ["Damaged", "Newer", "Limit", "Truncated", "Incomplete"] {
        assert!(refused.get(kind).is_some_and(|count| *count >= 20), "{kind}: {refused:?}");
    }
    assert!(whole >= 1000, "{whole} sound, {refused:?}");
}

/// Breaks one thing, below the checksums.
fn mutate(image: &mut RawImage, choice: &mut Choice) {
    if choice.of(12) == 0 {
        return change(&mut image.header, choice);
    }
    if image.frames.is_empty() {
        return;
    }
    let (a, b) = (choice.of(image.frames.len()), choice.of(image.frames.len()));
    match choice.of(14) {
        0..4 => change(&mut image.frames[a].body, choice),
        4 => change(&mut image.frames[a].data, choice),
        5 => drop(image.frames.remove(a)),
        6 => {
            let again = image.frames[a].clone();
            image.frames.insert(b, again);
        }
        7 => image.frames.swap(a, b),
        8 => image.frames[a].flags = 1 << choice.of(4) | choice.of(4) as u32,
        9 => {
            image.frames[a].kind = [*b"RECD", *b"PAGE", *b"FAIL", *b"INDX", *b"SEAL", *b"NEWS"][choice.of(6)]
        }
        10 => image.frames[a].body_len = Some(choice.number()),
        11 => image.frames[a].data_len = Some(choice.number()),
        12 => image.frames[a].pad_len = Some(choice.number()),
        _ => {
            let reason = cbor!({"reason" => "no space left"}).unwrap();
            image.frames.insert(a, frame(b"FAIL", 0, support::encoded(&reason), Vec::new()));
        }
    }
}

fn change(bytes: &mut Vec<u8>, choice: &mut Choice) {
    if bytes.is_empty() {
        return bytes.push(choice.of(256) as u8);
    }
    let at = choice.of(bytes.len());
    match choice.of(5) {
        0 => bytes[at] ^= 1 << choice.of(8),
        1 => bytes[at] = [0x9f, 0xbf, 0x5f, 0xff, 0x9b, 0xbb, 0x5b, 0xc0, 0xf9, 0x1c][choice.of(10)],
        2 => bytes.truncate(at),
        3 => {
            let number = choice.number().to_le_bytes();
            let end = (at + 4).min(bytes.len());
            bytes[at..end].copy_from_slice(&number[..end - at]);
        }
        _ => {
            let part = bytes[at..(at + choice.of(32)).min(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
    }
}

fn refusal(image: &RawImage) -> Error {
    read_every_way(&image.encode()).expect_err("it was taken for sound")
}

fn with(frames: Vec<support::RawFrame>) -> RawImage {
    let mut image = RawImage::new(&support::header(false));
    image.frames = frames;
    image.sealed()
}

#[test]
fn each_rule_of_run_tables_is_kept() {
    let _turn = turn();
    let page = || vec![7; 4096];
    let top = u64::MAX - 4095;
    let none = [0; 16];
    let broken = [
        (pages(1, &[], 0, Vec::new()), "0 runs"),
        (pages(1, &[(0, 0, 1, None)], 0, Vec::new()), "no pages"),
        (pages(1, &[(8, 1, 1, None)], 0, Vec::new()), "not a multiple"),
        (pages(1, &[(4096, 2, 1, None), (8192, 1, 1, None)], 0, Vec::new()), "begins before"),
        (pages(1, &[(4096, 1, 1, None), (0, 1, 1, None)], 0, Vec::new()), "begins before"),
        (pages(1, &[(top, 1, 1, None)], 0, Vec::new()), "passes the end"),
        (pages(1, &[(0, 1, 3, None)], 0, Vec::new()), "kind 3"),
        (pages(1, &[(0, 1, 2, Some((&none, 1, 0)))], 0, Vec::new()), "names none"),
        (pages(1, &[(0, 1, 2, Some((&none, 1, top)))], 0, Vec::new()), "passes the end"),
        (pages(1, &[(0, 1, 2, Some((&none, 1, 1)))], 0, Vec::new()), "passes the end"),
        (pages(1, &[(0, 1, 0, None)], 0, Vec::new()), "0 bytes of data for runs of 4096"),
        (pages(1, &[(0, 1, 1, None)], 0, page()), "4096 bytes of data for runs of 0"),
        (pages(1, &[(0, 1, 0, None)], 0, [page(), page()].concat()), "8192 bytes of data for runs of 4096"),
        (pages(1, &[(0, 1 << 30, 0, None)], ZSTD, page()), "which holds"),
        (pages(1, &[(0, 1, 0, None)], ZSTD, page()), "can't be unpacked"),
        (
            pages(1, &[(0, 2, 0, None)], ZSTD, support::PACKED_PAGE.to_vec()),
            "are 4096 bytes, and the runs say 8192",
        ),
        (
            pages(1, &[(0, 1, 0, None)], ZSTD, [support::PACKED_PAGE, support::PACKED_PAGE].concat()),
            "unpacked",
        ),
    ];
    for (frame, what) in broken {
        let error = refusal(&with(vec![frame]));
        assert!(error.what().contains(what), "{what}: {error}");
        assert_eq!((error.kind(), error.frame()), (ErrorKind::Damaged, Some(0)));
    }
    let huge = || pages(1, &[(0, u32::MAX, 1, None)], 0, Vec::new());
    let mut counts = huge();
    counts.body[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refusal(&with(vec![counts])).what().contains("ends before its 4294967295 runs"));
    assert!(read_every_way(&with(vec![huge(), huge(), huge()]).encode()).is_ok());
}

#[test]
fn the_order_of_frames_and_what_the_seal_says_are_checked() {
    let _turn = turn();
    let place = |image: &RawImage, kind: &[u8; 4]| image.frames.iter().position(|f| &f.kind == kind).unwrap();
    let check = |what: &str, break_it: &dyn Fn(&mut RawImage)| {
        let mut image = golden();
        break_it(&mut image);
        let error = refusal(&image);
        assert!(error.to_string().contains(what), "{what}: {error}");
    };
    for number in 0..7 {
        check("the seal says", &|image| image.frames.last_mut().unwrap().body[number * 8] ^= 1);
    }
    check("a seal of 55 bytes", &|image| image.frames.last_mut().unwrap().body.truncate(55));
    check("truncated", &|image| drop(image.frames.pop()));
    check("a RECD frame after the index", &|image| image.frames.insert(8, image.frames[0].clone()));
    check("a XTRA frame after the index", &|image| image.frames.insert(8, image.frames[3].clone()));
    check("bytes follow the seal", &|image| image.frames.push(image.frames[0].clone()));
    check("doesn't follow the one before", &|image| image.frames[4].link = Some(5));
    check("doesn't follow the one before", &|image| image.frames[4].number = Some(5));
    check("the checksum of the PAGE frame's content", &|image| image.frames[2].sum = Some(5));
    check("index isn't that of the frames", &|image| {
        let index = place(image, b"INDX");
        image.frames[index].body[16] ^= 1;
    });
    check("the index ends in the middle", &|image| {
        let index = place(image, b"INDX");
        image.frames[index].body.pop();
    });
    check("without a reason", &|image| {
        image.frames.truncate(2);
        image.frames.push(frame(b"FAIL", 0, vec![0xa0], Vec::new()));
    });
    let (bytes, offsets) = places(&golden());
    // Frames cut out or exchanged as they are, links and all.
    let parts = |order: &[usize]| {
        let mut out = bytes[..offsets[0]].to_vec();
        let end = |i: usize| offsets.get(i + 1).copied().unwrap_or(bytes.len());
        order.iter().for_each(|i| out.extend(&bytes[offsets[*i]..end(*i)]));
        verify(&out[..], |_| ()).unwrap_err()
    };
    for (order, at) in [(&[0, 2][..], 1), (&[1, 0], 0), (&[0, 1, 1], 2), (&[0, 8], 1)] {
        let error = parts(order);
        assert_eq!(error.frame(), Some(at), "{error}");
        assert!(error.what().contains("removed, moved or replaced"), "{error}");
    }
}

#[test]
fn an_index_that_lies_leads_nowhere_else() {
    let _turn = turn();
    let image = golden();
    let index = image.frames.len() - 2;
    // Every bit of the index: the file opens or not, and what is read by it is what was asked for, or an error.
    let mut opened = 0;
    for bit in 0..image.frames[index].body.len() * 8 {
        let mut image = image.clone();
        image.frames[index].body[bit / 8] ^= 1 << (bit % 8);
        let bytes = image.encode();
        let (result, memory) = memory_of(|| read_out_of_order(&bytes));
        assert!(memory <= allowed(bytes.len()));
        assert!(result.is_err(), "bit {bit} led somewhere");
        let Ok(file) = RandomAccess::open(&bytes[..]) else { continue };
        opened += 1;
        for at in file.records() {
            if let Ok(record) = file.record(at) {
                assert_eq!(
                    (record.at, record.kind, record.id),
                    (at.offset, at.kind.clone(), at.id),
                    "bit {bit}"
                );
            }
        }
        for at in file.pages_everywhere() {
            for (space, runs) in file
                .pages(at)
                .map(|pages| (pages.space, pages.runs))
                .into_iter()
                .chain(file.locate(at).map(|stored| (stored.space, stored.runs)))
            {
                let found = (space, runs[0].at, runs[runs.len() - 1].end());
                assert_eq!(found, (at.space, at.first, at.end), "bit {bit}");
            }
        }
        assert!(verify(&bytes[..], |_| ()).is_err());
    }
    assert!(opened > 1000, "only {opened} came as far as the frames");
}

#[test]
fn promised_bytes_take_no_memory_before_they_come() {
    let _turn = turn();
    let (bytes, offsets) = places(&golden());
    // A frame that promises as much as the format allows, in a stream that ends.
    for (body, data) in [(BODY_MAX as u32, None), (1 << 20, Some(DATA_MAX as u32))] {
        let mut image = golden();
        image.frames[0].body_len = Some(body);
        image.frames[0].data_len = data;
        image.frames[0].kind = *b"NEWS";
        image.frames[0].flags = IGNORABLE;
        let cut = image.encode()[..offsets[0] + HEAD + 100].to_vec();
        let (result, memory) = memory_of(|| verify(&cut[..], |_| ()));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Truncated);
        assert!(memory < 256 << 10, "{memory} bytes");
    }
    for (body, data) in [(BODY_MAX as u32 + 1, None), (1, Some(DATA_MAX as u32 + 1)), (u32::MAX, None)] {
        let mut image = golden();
        image.frames[0].body_len = Some(body);
        image.frames[0].data_len = data;
        let (error, memory) = memory_of(|| verify(&image.encode()[..], |_| ()).unwrap_err());
        assert_eq!((error.kind(), error.position()), (ErrorKind::Limit, offsets[0] as u64));
        assert!(memory < 256 << 10, "{memory} bytes");
    }
    let mut image = golden();
    image.header_len = Some(u32::MAX);
    assert_eq!(refusal(&image).kind(), ErrorKind::Limit);
    image.header_len = Some(1 << 20);
    let (error, memory) = memory_of(|| verify(&image.encode()[..PREAMBLE + 5], |_| ()).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Truncated);
    assert!(memory < 256 << 10, "{memory} bytes");
    assert!(bytes.len() > PREAMBLE);
}

#[test]
fn cbor_that_would_burst_a_decoder_is_refused() {
    let _turn = turn();
    let whole = record("kind", 1, ciborium::Value::Null);
    // {"kind": "kind", "id": 1, "body": …}: the last byte is the null.
    let around = |inner: Vec<u8>| {
        let mut frame = whole.clone();
        frame.body.pop();
        frame.body.extend(inner);
        with(vec![frame])
    };
    let mut items = vec![0x9a, 0, 0x20, 0, 0];
    items.resize(items.len() + 0x20_0000, 0);
    let cases: [(Vec<u8>, ErrorKind); 12] = [
        (vec![0x81; 1 << 20], ErrorKind::Limit),
        (vec![0xc1; 1 << 20], ErrorKind::Limit),
        (vec![0xa1; 200], ErrorKind::Limit),
        (vec![0x9f; 200], ErrorKind::Limit),
        (items, ErrorKind::Limit),
        (vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], ErrorKind::Damaged),
        (vec![0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], ErrorKind::Damaged),
        (vec![0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], ErrorKind::Damaged),
        (vec![0x7f, 0x41, 0x00, 0xff], ErrorKind::Damaged),
        (vec![0xbf, 0x01, 0xff], ErrorKind::Damaged),
        (vec![0xff], ErrorKind::Damaged),
        (vec![0x61, 0xff], ErrorKind::Damaged),
    ];
    for (inner, kind) in cases {
        let start = inner[..inner.len().min(8)].to_vec();
        let image = around(inner);
        let bytes = image.encode();
        let (result, memory) = memory_of(|| verify(&bytes[..], |_| ()));
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.frame()), (kind, Some(0)), "{start:x?}: {error}");
        // Refused before anything was decoded: nothing but the bytes themselves, in a vector that doubled while they came
        // (while it moves, the old one and the new one count).
        assert!(memory <= 3 * bytes.len() + (256 << 10), "{start:x?}: {memory} bytes for {}", bytes.len());
    }
    // The most that passes: a record of as many one-byte items as there may be.
    let mut items = vec![0x9a, 0, 0x0f, 0xff, 0xf0];
    items.resize(items.len() + 0xf_fff0, 0);
    let bytes = around(items).encode();
    let (result, memory) = memory_of(|| verify(&bytes[..], |_| ()));
    result.unwrap();
    assert!(memory <= allowed(bytes.len()), "{memory} bytes for {}", bytes.len());
}

#[test]
fn records_that_say_less_or_more_than_a_record_are_refused() {
    let _turn = turn();

    let broken: [(Value, &str); 9] = [
        (cbor!([1, 2]).unwrap(), "not a CBOR map"),
        (cbor!({1 => 2}).unwrap(), "isn't text"),
        (cbor!({"id" => 1, "body" => null}).unwrap(), "\"kind\" is missing"),
        (cbor!({"kind" => "a", "body" => null}).unwrap(), "\"id\" is missing"),
        (cbor!({"kind" => "a", "id" => 1}).unwrap(), "\"body\" is missing"),
        (cbor!({"kind" => 1, "id" => 1, "body" => null}).unwrap(), "kind isn't text"),
        (cbor!({"kind" => "a", "id" => -1, "body" => null}).unwrap(), "isn't a number of 64 bits"),
        (cbor!({"kind" => "", "id" => 1, "body" => null}).unwrap(), "its kind has 0 bytes"),
        (
            Value::Map(["kind", "id", "body", "body"].map(|name| (name.into(), "a".into())).to_vec()),
            "\"body\" twice",
        ),
    ];
    for (value, what) in broken {
        let error = refusal(&with(vec![frame(b"RECD", 0, support::encoded(&value), Vec::new())]));
        assert!(error.what().contains(what), "{what}: {error}");
        assert_eq!((error.kind(), error.frame()), (ErrorKind::Damaged, Some(0)));
    }
    let mut image = golden();
    image.header = support::encoded(&cbor!({"writer" => "x"}).unwrap());
    assert!(refusal(&image).what().contains("\"identity\" is missing"));
    image.header = support::encoded(&cbor!({"identity" => "zz"}).unwrap());
    assert!(refusal(&image).what().contains("32 hexadecimal digits"));
}
