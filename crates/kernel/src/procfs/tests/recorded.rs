//! The parsers against texts whose meaning is known.

use std::ffi::OsStr;

use crate::procfs::limits::{Limit, Resource, UNLIMITED};
use crate::procfs::locks::{Access, Kind, Lock};
use crate::procfs::maps::{Area, Perms, Special};
use crate::procfs::smaps::{VmFlag, VmFlags};
use crate::procfs::stat::State;
use crate::procfs::status::{Ids, NumberList};
use crate::procfs::syscall::Syscall;
use crate::procfs::timers::{Notify, Timer};
use crate::procfs::*;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/procfs/fixtures/", $name))
    };
}

/// What the recorded process called itself.
const HOSTILE: &str = "a) S (b\n\\c d\t";

/// A text with one piece replaced; the piece must be there.
fn with(text: &[u8], old: &str, new: &str) -> Vec<u8> {
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.contains(old), "{old:?} is not in the text");
    text.replacen(old, new, 1).into_bytes()
}

#[test]
fn stat_of_a_hostile_name() {
    let stat = stat::parse(fixture!("6.18-stat")).unwrap();
    assert_eq!(stat.comm, HOSTILE);
    assert_eq!((stat.pid, stat.state, stat.ppid, stat.pgrp), (17645, State::Sleeping, 17603, 17595));
    assert_eq!((stat.session, stat.tty_nr, stat.tpgid, stat.flags), (2926, 0, -1, 4194368));
    assert_eq!((stat.minflt, stat.priority, stat.nice, stat.num_threads), (766, 20, 0, 1));
    assert_eq!((stat.starttime, stat.vsize, stat.rss, stat.rsslim), (326731, 19218432, 3139, u64::MAX));
    assert_eq!(
        (stat.start_code, stat.end_code, stat.start_stack),
        (94538486521856, 94538486522197, 140730674868816)
    );
    assert_eq!((stat.sigignore, stat.sigcatch, stat.wchan), (16781312, 2, 1));
    assert_eq!((stat.exit_signal, stat.processor, stat.rt_priority, stat.policy), (17, 1, 0, 0));
    assert_eq!(
        (stat.start_data, stat.end_data, stat.start_brk),
        (94538486533552, 94538486534168, 94539108851712)
    );
    assert_eq!((stat.arg_start, stat.arg_end), (140730674874372, 140730674874470));
    assert_eq!((stat.env_start, stat.env_end, stat.exit_code), (140730674874470, 140730674876367, 0));
}

#[test]
fn stat_names_the_field_it_lacks_or_cannot_read() {
    let text = fixture!("6.18-stat");
    let failed = stat::parse(&with(text, " 326731 ", " 32673x ")).unwrap_err();
    assert_eq!(failed.call, r#"stat: starttime: "32673x" isn't understood"#);
    let failed = stat::parse(b"1 (x) S 1 2").unwrap_err();
    assert_eq!(failed.call, r#"stat: no session in "S 1 2""#);
    assert!(stat::parse(b"1 )x( S 1 2").is_err());
    assert!(stat::parse(b"").is_err());
    // A later kernel adds a field.
    let longer = [text.trim_ascii_end(), b" 17 18\n"].concat();
    assert_eq!(stat::parse(&longer).unwrap(), stat::parse(text).unwrap());
}

#[test]
fn status_of_a_hostile_name() {
    let status = status::parse(fixture!("6.18-status")).unwrap();
    assert_eq!(status.name, HOSTILE);
    assert_eq!((status.tgid, status.pid, status.ppid, status.tracer_pid), (17645, 17645, 17603, 0));
    assert_eq!((status.umask, status.kthread, status.core_dumping), (Some(0o022), Some(false), Some(false)));
    assert_eq!((status.sig_ign, status.sig_cgt), (0x1001000, 2));
    assert_eq!(status.groups, [] as [u32; 0]);
    assert_eq!(status.cpus_allowed, NumberList { ranges: vec![(0, 1)] });
    assert_eq!(status.other, [("untag_mask".into(), "0xffffffffffffffff".into())]);
}

#[test]
fn status_of_an_older_kernel() {
    let text = fixture!("6.1-status");
    let status = status::parse(text).unwrap();
    assert_eq!((status.tgid, status.pid, status.tracer_pid, status.state), (4127, 4130, 977, State::Traced));
    assert_eq!(status.uid, Ids { real: 33, effective: 33, saved: 33, fs: u32::MAX });
    assert_eq!(status.gid, Ids { real: 33, effective: 34, saved: 35, fs: 36 });
    assert_eq!(status.groups, [4, 33, 4294967294]);
    assert_eq!(status.ns_pid, [4130, 15, 4]);
    assert_eq!((status.ns_tgid[2], status.ns_pgid[1], status.ns_sid[0]), (1, 12, 4127));
    assert_eq!((status.kthread, status.x86_thread_features.as_ref()), (None, None));
    assert_eq!(
        (status.vm_size, status.vm_lck, status.vm_swap),
        (Some(9000 << 10), Some(64 << 10), Some(12 << 10))
    );
    assert_eq!((status.hugetlb_pages, status.thp_enabled), (Some(2 << 20), Some(false)));
    assert_eq!((status.threads, status.sig_q), (3, (2, 31000)));
    assert_eq!((status.sig_pnd, status.shd_pnd, status.sig_blk), (0, 1 << 63 | 1, 1 << 16));
    assert_eq!((status.cap_prm, status.cap_eff, status.cap_bnd), (1 << 10, 1 << 10, 0x1ff_ffff_ffff));
    assert!(status.no_new_privs);
    assert_eq!((status.seccomp, status.seccomp_filters), (Some(2), Some(3)));
    assert_eq!(status.speculation_store_bypass.as_deref(), Some("thread vulnerable"));
    assert_eq!(status.cpus_allowed.iter().collect::<Vec<_>>(), [0, 2, 3, 32, 33, 34, 35, 36, 37, 38, 39]);
    assert!(status.cpus_allowed.contains(35) && !status.cpus_allowed.contains(31));
    assert_eq!(status.mems_allowed, Some(NumberList { ranges: vec![(0, 1)] }));
    assert_eq!((status.voluntary_ctxt_switches, status.nonvoluntary_ctxt_switches), (150, 7));
    assert_eq!(status.other, []);
}

#[test]
fn status_of_a_zombie_has_no_memory() {
    let status = status::parse(fixture!("6.1-status-zombie")).unwrap();
    assert!(status.is_dead());
    assert_eq!((status.vm_size, status.umask, status.fd_size), (None, None, 0));
}

#[test]
fn status_names_the_line_it_lacks_or_cannot_read() {
    let text = fixture!("6.1-status");
    let said = |old, new| status::parse(&with(text, old, new)).unwrap_err().call;
    assert_eq!(
        said("Uid:\t33\t33\t33", "Uid:\t33\t33"),
        r#"status: Uid: "33\t33\t4294967295" isn't understood"#
    );
    assert_eq!(said("Threads:\t3\n", ""), "status: no Threads line");
    assert_eq!(said("ShdPnd:\t8", "ShdPnd:\tg"), r#"status: ShdPnd: "g000000000000001" isn't understood"#);
    assert_eq!(said("0,2-3,", "0,3-2,"), r#"status: Cpus_allowed_list: "0,3-2,32-39" isn't understood"#);
    // What a later kernel adds is kept.
    let status = status::parse(&with(text, "Threads:", "Later:\t1 2\nThreads:")).unwrap();
    assert_eq!(status.other, [("Later".into(), "1 2".into())]);
}

#[test]
fn a_name_cannot_forge_a_line() {
    // The kernel escapes the newline; a name may hold anything else.
    let text = with(fixture!("6.1-status"), "Name:\tnginx", "Name:\t\\nUid:\t0\\\\n : ");
    let status = status::parse(&text).unwrap();
    assert_eq!(status.name, "\nUid:\t0\\n : ");
    assert_eq!(status.uid.real, 33);
}

#[test]
fn maps_of_every_kind() {
    let areas = maps::parse(fixture!("6.18-maps")).unwrap();
    let at = |start: u64| areas.iter().find(|a| a.start == start).unwrap();
    assert_eq!(
        *at(0x55fb74e82000),
        Area {
            start: 0x55fb74e82000,
            end: 0x55fb74e83000,
            perms: Perms { read: true, write: false, exec: true, shared: false },
            offset: 0x1000,
            major: 0xfe,
            minor: 0,
            inode: 18504,
            path: "/usr/bin/python3.11".into(),
            deleted: false,
            special: None,
        }
    );
    let deleted = at(0x7f76d5fba000);
    assert_eq!(
        (deleted.path.as_os_str(), deleted.deleted),
        (OsStr::new("/tmp/with space\nand newline"), true)
    );
    assert!(deleted.perms.shared && deleted.has_file());
    assert_eq!(deleted.dev(), libc::makedev(254, 0));
    assert_eq!(at(0x7f76d5fbc000).path, "/memfd:a name");
    assert_eq!((at(0x7f76d5153000).has_file(), at(0x7f76d5153000).path.as_os_str()), (false, OsStr::new("")));
    let specials: Vec<_> = areas.iter().filter_map(|a| a.special.clone()).collect();
    assert_eq!(
        specials,
        [Special::Heap, Special::Vvar, Special::VvarVclock, Special::Vdso, Special::Stack, Special::Vsyscall]
    );
    assert_eq!(areas.last().unwrap().perms.prot(), libc::PROT_EXEC);
    assert_eq!(areas.last().unwrap().len(), 4096);
}

#[test]
fn a_file_cannot_pose_as_the_kernels() {
    let one = |line: &str| maps::parse(line.as_bytes()).unwrap().remove(0);
    // A file system whose paths don't begin with a slash.
    let posing = one("1000-2000 rw-p 00000000 00:2a 7                          [heap]\n");
    assert_eq!((posing.special, posing.path.as_os_str()), (None, OsStr::new("[heap]")));
    let shmem = one("1000-2000 rw-s 00000000 00:01 7                          [anon_shmem:a b]\n");
    assert_eq!(shmem.special, Some(Special::AnonShmem("a b".into())));
    let uprobes = one("1000-2000 --xp 00000000 00:00 0                          [uprobes]\n");
    assert_eq!(uprobes.special, Some(Special::Other("uprobes".into())));
    // The line ends after the inode where there is no name, with a blank or without.
    assert_eq!(one("1000-2000 rw-p 00000000 00:00 0 \n"), one("1000-2000 rw-p 00000000 00:00 0"));
    // Blanks at the end of a path are the path's.
    assert_eq!(one("1000-2000 r--p 00000000 08:01 7    /a  b \n").path, "/a  b ");
}

#[test]
fn a_path_may_be_longer_than_a_page() {
    let long = format!("/{}", "\\012".repeat(4094));
    let line = format!("1000-2000 r--p 00000000 08:01 7                          {long} (deleted)\n");
    let area = maps::parse(line.as_bytes()).unwrap().remove(0);
    assert_eq!(area.path.as_os_str().len(), 4095);
    assert!(area.deleted);
}

#[test]
fn maps_names_what_it_cannot_read() {
    for (line, what) in [
        ("2000-1000 rw-p 00000000 00:00 0", "the range"),
        ("1000 rw-p 00000000 00:00 0", "the range"),
        ("1000-2000 rw-x 00000000 00:00 0", "the permissions"),
        ("1000-2000 rw-pp 00000000 00:00 0", "the permissions"),
        ("1000-2000 rw-p 0x 00:00 0", "the offset"),
        ("1000-2000 rw-p 00000000 0000 0", "the device"),
        ("1000-2000 rw-p 00000000 00:00", "the inode"),
        ("10000000000000000-20000000000000000 rw-p 00000000 00:00 0", "the range"),
    ] {
        let failed = maps::parse(line.as_bytes()).unwrap_err();
        assert!(failed.call.starts_with(&format!("maps: {what}: ")), "{failed}");
    }
}

#[test]
fn smaps_of_this_kernel() {
    let entries = smaps::parse(fixture!("6.18-smaps")).unwrap();
    let areas = maps::parse(fixture!("6.18-maps")).unwrap();
    assert_eq!(entries.iter().map(|e| e.area.clone()).collect::<Vec<_>>(), areas);
    let advised = entries.iter().find(|e| e.area.start == 0x7f76d5153000).unwrap();
    assert_eq!(advised.vm_flags.codes(), ["rd", "wr", "mr", "mw", "me", "dc", "ac", "dd"]);
    assert_eq!((advised.rss, advised.anonymous, advised.swap), (8192, 8192, 0));
    assert!(entries.iter().all(|e| e.vm_flags.unknown.is_empty()));
}

#[test]
fn smaps_of_an_older_kernel_with_what_we_do_not_know() {
    let entries = smaps::parse(fixture!("6.1-smaps")).unwrap();
    let [file, huge, named] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(file.area.path, "/opt/x (deleted) y");
    assert!(file.area.deleted);
    assert_eq!((file.area.major, file.area.minor, file.area.inode), (0x103, 2, 9007199254740993));
    assert_eq!((file.anonymous, file.swap, file.locked), (4096, 8192, 4096));
    assert_eq!(file.protection_key, Some(5));
    assert_eq!(file.vm_flags.unknown, ["zz", "??"]);
    assert!(file.vm_flags.has(VmFlag::LockOnFault) && !file.vm_flags.has(VmFlag::Shared));
    assert_eq!(huge.kernel_page_size, 2 << 20);
    assert_eq!((huge.shared_hugetlb, huge.private_hugetlb), (2 << 20, 4 << 20));
    assert!(huge.vm_flags.has(VmFlag::HugeTlb));
    assert_eq!(named.area.special, Some(Special::Anon("stack of thread 2".into())));
    let flags: Vec<_> = named.vm_flags.iter().collect();
    assert!(flags.ends_with(&[VmFlag::Account, VmFlag::WipeOnFork, VmFlag::UffdWp]), "{flags:?}");
}

#[test]
fn every_vm_flag_has_its_own_code() {
    let codes: std::collections::BTreeSet<_> = VmFlag::ALL.iter().map(|f| f.code()).collect();
    assert_eq!(codes.len(), VmFlag::ALL.len());
    assert!(VmFlag::ALL.len() <= 64);
    for flag in VmFlag::ALL {
        let mut flags = VmFlags::parse(flag.code().as_bytes());
        assert_eq!(flags.iter().collect::<Vec<_>>(), [*flag]);
        flags.remove(*flag);
        assert_eq!(flags, VmFlags::default());
    }
}

#[test]
fn smaps_names_the_line_an_area_lacks() {
    let text = fixture!("6.1-smaps");
    let said = |old, new| smaps::parse(&with(text, old, new)).unwrap_err().call;
    assert_eq!(
        said("VmFlags: rd wr sh", "VmFags: rd"),
        "smaps: no VmFlags line at 7f0000000000-7f0000400000"
    );
    assert_eq!(
        said("Locked:                4 kB", "Locked: 4 MB"),
        r#"smaps: Locked: "4 MB" isn't understood"#
    );
    assert!(said("55d0c0000000-55d0c0001000 rw-p", "x").starts_with("smaps: the first line"));
    assert!(said("7f0000400000 rw-s", "7f0000400000 rw").starts_with("smaps: the permissions"));
}

#[test]
fn fdinfo_of_several_kinds() {
    let file = fdinfo::parse(fixture!("6.18-fdinfo-file")).unwrap();
    assert_eq!((file.pos, file.flags, file.mnt_id, file.ino), (5000, 0o2100002, 27, Some(10010786)));
    assert_eq!(file.locks.len(), 2);
    assert_eq!((&file.locks[0].kind, file.locks[0].access), (&Kind::Flock, Access::Read));
    assert_eq!((file.locks[1].start, file.locks[1].end), (100, Some(109)));
    assert_eq!(file.other, []);

    let epoll = fdinfo::parse(fixture!("6.18-fdinfo-epoll")).unwrap();
    assert_eq!(epoll.get("tfd"), Some("5 events:       19 data:                5  pos:0 ino:66a5 sdev:f"));
    let eventfd = fdinfo::parse(fixture!("6.18-fdinfo-eventfd")).unwrap();
    assert_eq!((eventfd.get("eventfd-count"), eventfd.get("tfd")), (Some("5"), None));
    let inotify = fdinfo::parse(fixture!("6.18-fdinfo-inotify")).unwrap();
    assert!(inotify.all("inotify wd").next().unwrap().starts_with("1 ino:13 sdev:fe00000 mask:3 "));
    let pidfd = fdinfo::parse(fixture!("6.18-fdinfo-pidfd")).unwrap();
    assert_eq!((pidfd.get("Pid"), pidfd.get("NSpid")), (Some("17645"), Some("17645")));
    let timerfd = fdinfo::parse(fixture!("6.18-fdinfo-timerfd")).unwrap();
    assert_eq!(timerfd.get("it_value"), Some("(0, 0)"));
}

#[test]
fn fdinfo_names_the_line_it_lacks_or_cannot_read() {
    assert_eq!(fdinfo::parse(b"pos:\t0\nmnt_id:\t1\n").unwrap_err().call, "fdinfo: no flags line");
    let failed = fdinfo::parse(b"pos:\t0\nflags:\t08\nmnt_id:\t1\n").unwrap_err();
    assert_eq!(failed.call, r#"fdinfo: flags: "08" isn't understood"#);
    let lock = b"pos:\t0\nflags:\t0\nmnt_id:\t1\nlock:\t1: POSIX ADVISORY STEAL 1 0:0:0 0 EOF\n";
    assert!(fdinfo::parse(lock).unwrap_err().call.starts_with("fdinfo: a lock's access: "));
    // 5.13 had no ino; a line without a colon is kept.
    let old = fdinfo::parse(b"pos:\t-1\nflags:\t0\nmnt_id:\t1\nodd\n").unwrap();
    assert_eq!((old.pos, old.ino, old.get("")), (-1, None, Some("odd")));
}

#[test]
fn locks_of_every_kind() {
    let recorded = locks::parse(fixture!("6.18-locks")).unwrap();
    assert_eq!(recorded, fdinfo::parse(fixture!("6.18-fdinfo-file")).unwrap().locks);

    let locks = locks::parse(fixture!("6.1-locks")).unwrap();
    assert_eq!(
        locks[0],
        Lock {
            id: 1,
            waiting: false,
            kind: Kind::Posix,
            mode: "ADVISORY".into(),
            access: Access::Write,
            pid: 1234,
            major: 0xfe,
            minor: 0,
            inode: 131090,
            start: 1073741824,
            end: Some(1073742335),
        }
    );
    assert_eq!(
        locks.iter().filter(|l| l.waiting).map(|l| (l.id, l.pid)).collect::<Vec<_>>(),
        [(1, 1300), (1, 1301)]
    );
    assert_eq!((&locks[3].kind, locks[3].pid, locks[3].end), (&Kind::OpenFile, -1, None));
    assert_eq!((&locks[4].kind, locks[4].mode.as_str(), locks[4].major), (&Kind::Lease, "BREAKING", 0x103));
    assert_eq!((locks[5].mode.as_str(), locks[5].inode, locks[5].end), ("*NOINODE*", 0, Some(0)));
    assert_eq!((&locks[6].kind, locks[6].access), (&Kind::Other("DELEG".into()), Access::None));
}

#[test]
fn limits_of_every_resource() {
    let limits = limits::parse(fixture!("6.18-limits")).unwrap();
    assert_eq!(limits.get(Resource::Cpu), Limit { soft: UNLIMITED, hard: UNLIMITED });
    assert_eq!(limits.get(Resource::Stack), Limit { soft: 8388608, hard: UNLIMITED });
    assert_eq!(limits.get(Resource::Core), Limit { soft: 0, hard: UNLIMITED });
    assert_eq!(limits.get(Resource::OpenFiles), Limit { soft: 20000, hard: 20000 });
    assert_eq!(limits.get(Resource::Nice), Limit { soft: 0, hard: 0 });
    assert_eq!(limits.get(Resource::MessageQueues).soft, 819200);
    assert_eq!((Resource::RealTimeTime as i32, Resource::Locked as u32), (15, libc::RLIMIT_MEMLOCK));

    let text = fixture!("6.18-limits");
    let said = |old, new| limits::parse(&with(text, old, new)).unwrap_err().call;
    assert_eq!(said("Max file locks ", "Max locks "), r#"limits: no "Max file locks" line"#);
    assert_eq!(said("819200  ", "many "), r#"limits: Max msgqueue size: "many" isn't understood"#);
}

#[test]
fn timers_of_every_notification() {
    let timers = timers::parse(fixture!("6.18-timers")).unwrap();
    let timer = |id, signal, value, notify, to_thread, clock| Timer {
        id,
        signal,
        value,
        notify,
        to_thread,
        target: 17645,
        clock,
    };
    assert_eq!(
        timers,
        [
            timer(2, 12, 7, Notify::Signal, true, 1),
            timer(1, 14, 0, Notify::None, false, 1),
            timer(0, 60, 0xdeadbeef, Notify::Signal, false, 0),
        ]
    );
    assert_eq!(timers::parse(b"").unwrap(), []);
    assert_eq!(
        timers::parse(b"signal: 1/0\n").unwrap_err().call,
        r#"timers: the first line: "signal" isn't understood"#
    );
    let lacks = b"ID: 4\nsignal: 1/0\nClockID: -6\nID: 5\n";
    assert_eq!(timers::parse(lacks).unwrap_err().call, "timers: no notify line of timer 4");
}

#[test]
fn sched_of_a_hostile_name() {
    let text = fixture!("6.18-sched");
    let recorded = sched::parse(text).unwrap();
    assert!(recorded.exec_start_ns > 3_000_000_000_000 && recorded.nr_switches >= 1);
    assert_eq!(recorded.nr_switches, recorded.nr_voluntary_switches + recorded.nr_involuntary_switches);
    // All that fits into a name: its own rule is too short, its lines come before the real one.
    let forged = with(text, HOSTILE, "\nnr_switches:9\n------");
    assert_eq!(sched::parse(&forged).unwrap(), recorded);
    let said = |old, new| sched::parse(&with(text, old, new)).unwrap_err().call;
    assert_eq!(said("nr_switches", "nr_twitches"), "sched: no nr_switches line");
    assert_eq!(said("-------------", "----- ------"), "sched: no rule of dashes");
}

#[test]
fn syscall_in_its_three_forms() {
    assert_eq!(
        syscall::parse(fixture!("6.18-syscall")).unwrap(),
        Syscall::Inside {
            nr: 0,
            args: [5, 0x7f76d5390c20, 1, 0x55fb9a1fe150, 0, 0],
            sp: 0x7ffe69e26c48,
            pc: 0x7f76d59162ad
        }
    );
    assert_eq!(syscall::parse(b"running\n").unwrap(), Syscall::Running);
    let outside = Syscall::Outside { sp: 0x7ffe0, pc: 0x55fb };
    assert_eq!(syscall::parse(b"-1 0x7ffe0 0x55fb\n").unwrap(), outside);
    for bad in ["", "0", "-1 0x1", "1 2 3 4 5 6 7 8 9", "0 0x1 0x2 0x3 0x4 0x5 0x6 0x7"] {
        assert!(syscall::parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
}

#[test]
fn cgroups_of_both_versions() {
    let groups = cgroup::parse(fixture!("6.18-cgroup")).unwrap();
    let memory = groups.iter().find(|g| g.controllers == ["memory"]).unwrap();
    // A colon in a group's name is the name's.
    assert_eq!((memory.hierarchy, memory.path.as_os_str()), (4, OsStr::new("/app/worker:1")));
    let v2 = groups.iter().find(|g| g.is_v2()).unwrap();
    assert_eq!((v2.controllers.len(), v2.path.as_os_str()), (0, OsStr::new("/")));
    let gone = cgroup::parse(b"0::/../x (deleted)\n").unwrap().remove(0);
    assert_eq!((gone.path.as_os_str(), gone.deleted), (OsStr::new("/../x"), true));
    assert!(cgroup::parse(b"0:/x\n").is_err());
    assert!(cgroup::parse(b"0::x\n").is_err());
}

#[test]
fn mounts_with_escapes_and_tags() {
    let recorded = mountinfo::parse(fixture!("6.18-mountinfo")).unwrap();
    let root = recorded.iter().find(|m| m.mountpoint == "/").unwrap();
    assert_eq!(
        (root.id, root.parent, root.dev(), root.fstype.as_str()),
        (27, 1, libc::makedev(254, 0), "ext4")
    );

    let mounts = mountinfo::parse(fixture!("6.1-mountinfo")).unwrap();
    assert_eq!(mounts[0].tag("shared"), Some(1));
    assert_eq!(mounts[1].root, "/sub dir/a\tb");
    assert_eq!(mounts[1].mountpoint, "/mnt/with space\nand\\backslash");
    assert_eq!((mounts[1].tag("master"), mounts[1].tag("shared")), (Some(7), None));
    assert_eq!(mounts[1].tags, ["master:7", "propagate_from:2", "unbindable", "new:tag"]);
    assert_eq!(
        (mounts[1].fstype.as_str(), mounts[1].source.as_os_str()),
        ("fuse.sshfs", OsStr::new("user@host:/a b"))
    );
    assert_eq!(mounts[2].root, "mnt:[4026532300]");
    assert_eq!(
        (mounts[3].source.as_os_str(), mounts[3].super_options.as_os_str()),
        (OsStr::new(""), OsStr::new("rw"))
    );
    let failed = mountinfo::parse(b"21 1 8:1 / / rw shared:1 ext4 x rw\n").unwrap_err();
    assert!(failed.call.starts_with("mountinfo: the separator: "), "{failed}");
}

#[test]
fn single_values() {
    assert_eq!(single::parse_comm(fixture!("6.18-comm")), HOSTILE);
    assert_eq!(single::parse_comm(b"\n\n"), "\n");
    assert_eq!(single::parse_strings(b"a\0\0b c\0"), ["a", "", "b c"]);
    assert_eq!(single::parse_strings(b""), [] as [&str; 0]);
    assert_eq!(single::parse_strings(b"title"), ["title"]);
    assert_eq!(single::parse_personality(b"00040000\n").unwrap(), 0x40000);
    assert!(single::parse_personality(b"100000000\n").is_err());
    assert_eq!(single::parse_coredump_filter(b"00000033\n").unwrap(), Some(0x33));
    assert_eq!(single::parse_coredump_filter(b"").unwrap(), None);
    let id = "c7839b24-ea81-4dd4-8fc5-9b8187e874c2";
    assert_eq!(single::parse_boot_id(format!("{id}\n").as_bytes()).unwrap(), id);
    assert!(single::parse_boot_id(id.replace("-4dd4-", "4-dd4-").as_bytes()).is_err());
    assert_eq!(ns::parse(ns::Kind::PidForChildren, b"pid:[4026531836]").unwrap(), 4026531836);
    let failed = ns::parse(ns::Kind::Net, b"pid:[4026531836]").unwrap_err();
    assert_eq!(failed.call, r#"ns: net: "pid:[4026531836]" isn't understood"#);
    assert_eq!(children::parse(b"12 13 ").unwrap(), [12, 13]);
    assert_eq!(children::parse(b"").unwrap(), [] as [i32; 0]);
    assert!(children::parse(b"12 x ").is_err());
}

#[test]
fn auxv_in_pairs() {
    let auxv = auxv::parse(fixture!("6.18-auxv")).unwrap();
    assert_eq!(auxv.get(libc::AT_PAGESZ), Some(4096));
    assert_eq!(auxv.get(libc::AT_SYSINFO_EHDR), Some(0x7f76d612d000));
    assert_eq!(auxv.get(9999), None);
    assert!(auxv::parse(&fixture!("6.18-auxv")[..20]).is_err());
    assert_eq!(auxv::parse(b"").unwrap().0, []);
}
