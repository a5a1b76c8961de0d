//! Reads an image in every way there is, and checks that these agree about it.

use bardo_image::{Frame, RandomAccess, Reader, Summary, copy, show, verify};

/// Whether the image is whole.
pub fn read(bytes: &[u8]) -> bool {
    let plain = in_order(bytes);
    assert_eq!(verify(bytes, |_| ()), plain);
    let copied = Reader::open(bytes).and_then(|reader| copy(reader, Vec::new()));
    assert_eq!(copied.as_ref().err(), plain.as_ref().err());
    if let Ok((copied, summary)) = copied {
        assert_eq!(verify(&copied[..], |_| ()), Ok(summary));
    }
    if let Ok(outline) = show(bytes) {
        assert_eq!(outline.error(), plain.as_ref().err());
        let mut text = String::new();
        outline.render(&mut text).unwrap();
        serde_json::to_string(&outline).unwrap();
    }
    let file = RandomAccess::open(bytes);
    if let Ok(file) = &file {
        for at in file.records() {
            assert!(file.record(at).is_ok() || plain.is_err());
        }
        for at in file.pages_everywhere() {
            assert!(file.pages(at).is_ok() && file.locate(at).is_ok() || plain.is_err());
        }
    }
    assert!(file.is_ok() || plain.is_err());
    if let Err(error) = &plain {
        assert!(error.position() <= bytes.len() as u64);
    }
    plain.is_ok()
}

fn in_order(bytes: &[u8]) -> Result<Summary, bardo_image::Error> {
    let mut reader = Reader::open(bytes)?;
    while let Some(frame) = reader.next()? {
        if let Frame::Pages(pages) = frame {
            assert_eq!(pages.iter().map(|(_, pages)| pages.len()).sum::<usize>(), pages.data.len());
            reader.recycle(pages);
        }
    }
    Ok(reader.summary())
}
