//! Records and pages that no checkpoint writes: refused with an error of the image, before anything is done with them.

use bardo_image::{Run, RunKind};

use super::*;
use crate::resource::memory::MappedFiles;
use crate::resource::memory::area::{Area, Backing, Flags, Span};
use crate::resource::memory::inode::{InodeKind, InodeRecord};
use crate::resource::memory::mapped::FileIdentity;
use crate::resource::memory::object::{OBJECTS, What};
use crate::resource::memory::shared::ObjectRecord;
use crate::resource::memory::space::{AreasRecord, Mm, SpaceRecord};

fn file(path: &str) -> FileIdentity {
    let path = super::super::area::FilePath(path.into());
    FileIdentity { path, dev: 1, ino: 2, size: 4096, mtime_ns: 0, zero_device: false }
}

fn space() -> SpaceRecord {
    SpaceRecord {
        mm: Mm::default(),
        exe: 0,
        exe_inode: None,
        auxv: vec![0; 32].into(),
        vdso: None,
        files: vec![file("/bin/true"), file("/lib/c")],
        guards: vec![],
        huge: vec![],
        lock_future: 0,
        policies: Vec::new(),
    }
}

fn area(start: u64, pages: u64, backing: Backing) -> Area {
    let shared = matches!(backing, Backing::Object { .. });
    Area { start, end: start + pages * PAGE, prot: 3, shared, flags: Flags::default(), backing, name: None }
}

/// An image of these records and pages, as far as the family takes it.
fn read(write: impl FnOnce(&mut Writer<Vec<u8>>)) -> Result<(), Error> {
    let mut image = Writer::begin(Vec::new(), &header()).unwrap();
    write(&mut image);
    let bytes = image.seal().unwrap().0;
    let mut reader = Reader::open(&bytes[..]).unwrap();
    let mut memory = MemoryImage::default();
    // Pages would go to a process that isn't there: whoever tries to write gets another error than the image's.
    let places = Places { pids: [(1, i32::MAX)].into(), shared_pid: i32::MAX, shared_at: 0x10000 };
    loop {
        match reader.next().map_err(Error::Image)? {
            Some(Frame::Record(record)) => assert!(memory.take(&record)?),
            Some(Frame::Pages(pages)) => {
                return memory
                    .put(Some(pages), &mut reader, &places, &MappedFiles::default(), &Silent, |_| Ok(()))
                    .map(drop);
            }
            None => return Ok(()),
        }
    }
}

fn refused(what: &str, write: impl FnOnce(&mut Writer<Vec<u8>>)) {
    match read(write) {
        Err(Error::Image(error)) => assert!(error.what().contains(what), "{what:?} in {error}"),
        other => panic!("{what}: {other:?}"),
    }
}

fn record_of(id: u64, space: &SpaceRecord, areas: Vec<Area>) -> impl FnOnce(&mut Writer<Vec<u8>>) {
    move |image| {
        image.record("memory/space", id, space).unwrap();
        image.record("memory/areas", id, &AreasRecord { areas }).unwrap();
    }
}

#[test]
fn what_a_checkpoint_writes_is_taken() {
    let areas = vec![area(0x10000, 1, Backing::Anonymous), area(0x12000, 1, Backing::Vdso)];
    read(record_of(1, &space(), areas)).unwrap();
}

#[test]
fn spaces_that_no_process_has() {
    let none = || Vec::new();
    refused("no process has the pid 0", record_of(0, &space(), none()));
    refused("no process has the pid", record_of(OBJECTS, &space(), none()));
    refused("its program is file 7", record_of(1, &SpaceRecord { exe: 7, ..space() }, none()));
    refused("auxiliary", record_of(1, &SpaceRecord { auxv: vec![0; 4096].into(), ..space() }, none()));
    refused("auxiliary", record_of(1, &SpaceRecord { auxv: vec![0; 17].into(), ..space() }, none()));
    refused("absolute", record_of(1, &SpaceRecord { files: vec![file("a")], ..space() }, none()));
    let guard = |start, end| SpaceRecord { guards: vec![Span { start, end }], ..space() };
    refused("guard", record_of(1, &guard(0x10001, 0x12000), none()));
    refused("guard", record_of(1, &guard(0, !0xfff), none()));
    refused("a second one", |image| {
        image.record("memory/space", 1, &space()).unwrap();
        image.record("memory/space", 1, &space()).unwrap();
    });
}

#[test]
fn areas_that_no_process_has() {
    let with = |areas: Vec<Area>| record_of(1, Box::leak(Box::new(space())), areas);
    let anonymous = |start| area(start, 2, Backing::Anonymous);
    refused("begins before", with(vec![anonymous(0x10000), anonymous(0x11000)]));
    refused("begins before", with(vec![anonymous(0x20000), anonymous(0x10000)]));
    refused("user space", with(vec![anonymous(0)]));
    refused("user space", with(vec![area(0x7fff_ffff_e000, 2, Backing::Anonymous)]));
    refused("file 2", with(vec![area(0x10000, 1, Backing::File { file: 2, offset: 0, writable: false })]));
    refused("no object", with(vec![area(0x10000, 1, Backing::Object { object: OBJECTS, offset: 0 })]));
    refused("wasn't told of", |image| {
        image.record("memory/areas", 9, &AreasRecord { areas: vec![anonymous(0x10000)] }).unwrap();
    });
    // The order holds across records too.
    refused("begins before", |image| {
        with(vec![anonymous(0x20000)])(image);
        image.record("memory/areas", 1, &AreasRecord { areas: vec![anonymous(0x10000)] }).unwrap();
    });
}

#[test]
fn shared_objects_that_no_tree_has() {
    let object = |id, size| {
        move |image: &mut Writer<Vec<u8>>| {
            image.record("memory/shared", id, &ObjectRecord { size, noreserve: false }).unwrap();
        }
    };
    refused("that of a process", object(3, 4096));
    for size in [0, 5, u64::MAX, !0xfff, 1 << 47] {
        refused("shared memory of", object(OBJECTS, size));
    }
    refused("a second one", |image| {
        object(OBJECTS, 4096)(image);
        object(OBJECTS, 4096)(image);
    });
    // Together larger than the address space.
    refused("shared memory of", |image| {
        object(OBJECTS, 1 << 46)(image);
        object(OBJECTS + 1, 1 << 46)(image);
    });
    refused("no object", |image| {
        object(OBJECTS, 4096)(image);
        record_of(1, &space(), vec![area(0x10000, 1, Backing::Object { object: OBJECTS, offset: 4096 })])(
            image,
        );
    });
}

#[test]
fn inodes_that_no_tree_has() {
    let inode = |id, size, seals| {
        move |image: &mut Writer<Vec<u8>>| {
            let What::Inode(record) = What::named(InodeKind::Memfd, "name".as_ref()) else { unreachable!() };
            image.record("memory/inode", id, &InodeRecord { size, seals, ..record }).unwrap();
        }
    };
    refused("that of a process", inode(3, 4096, 0));
    refused("bytes", inode(OBJECTS, u64::MAX, 0));
    refused("seals", inode(OBJECTS, 1, 1 << 31));
    refused("a second one", |image| {
        inode(OBJECTS, 1, 0)(image);
        image.record("memory/shared", OBJECTS, &ObjectRecord { size: 4096, noreserve: false }).unwrap();
    });
    refused("no inode", |image| {
        inode(OBJECTS, 1, 0)(image);
        let backing = Backing::Inode { inode: OBJECTS + 1, offset: 0, writable: false };
        record_of(1, &space(), vec![area(0x10000, 1, backing)])(image);
    });
    refused("its program", record_of(1, &SpaceRecord { exe_inode: Some(OBJECTS), ..space() }, vec![]));
    refused("passes the end", |image| {
        inode(OBJECTS, 1, 0)(image);
        image.pages(OBJECTS, &[Run { at: 4096, pages: 1, kind: RunKind::Data }], &[1; 4096]).unwrap();
    });
}

#[test]
fn pages_go_only_where_their_space_has_pages_of_its_own() {
    let pages = |space, at, kind| {
        move |image: &mut Writer<Vec<u8>>| {
            image.record("memory/shared", OBJECTS, &ObjectRecord { size: 8192, noreserve: false }).unwrap();
            let shared_file = Backing::File { file: 0, offset: 0, writable: true };
            let areas = vec![
                area(0x10000, 2, Backing::Anonymous),
                Area { shared: true, ..area(0x12000, 2, shared_file) },
                area(0x14000, 2, Backing::Vdso),
                area(0x16000, 1, Backing::Object { object: OBJECTS, offset: 0 }),
            ];
            record_of(1, &self::space(), areas)(image);
            let data = vec![1; if kind == RunKind::Data { 8192 } else { 0 }];
            image.pages(space, &[Run { at, pages: 2, kind }], &data).unwrap();
        }
    };
    for kind in [RunKind::Data, RunKind::Zero] {
        refused("is in no area", pages(1, 0x17000, kind));
        refused("is in no area", pages(1, 0, kind));
        refused("is in no area", pages(1, 0x7fff_ffff_f000, kind));
        // Writing there would change the file.
        refused("no pages of its own", pages(1, 0x12000, kind));
        refused("no pages of its own", pages(1, 0x11000, kind));
        refused("no pages of its own", pages(1, 0x14000, kind));
        refused("no pages of its own", pages(1, 0x16000, kind));
        refused("no record tells", pages(2, 0x10000, kind));
        refused("passes the end", pages(OBJECTS, 4096, kind));
        refused("no record tells", pages(OBJECTS + 1, 0, kind));
    }
    // What is allowed reaches the process, which isn't there.
    for (space, at) in [(1, 0x10000), (OBJECTS, 0)] {
        assert!(matches!(read(pages(space, at, RunKind::Data)), Err(Error::Failed(_))));
    }
}
