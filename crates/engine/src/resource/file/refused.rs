//! Open files that this version can't save: each by its name, with why, and what to do. The last of the table: it claims all
//! that nobody else did.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use bardo_image::Record;
use bardo_kernel::socket;

use super::path::{Reach, type_name};
use super::scene::{Scene, Seen};
use super::survey::Collected;
use super::{FilesImage, Kind, device, image};
use crate::error::Result;
use crate::support::Support;

/// The kind.
#[derive(Debug, Clone, Copy)]
pub struct Refused;

/// The name of the line in the table; no record has it.
pub const NAME: &str = "file/unknown";

const LATER: &str =
    "a later version of bardo will save these; until then close it, or checkpoint before it is opened";
const NEVER: &str = "close it before the checkpoint, or checkpoint before it is opened";

/// An open file without an inode of its own: what its link's text begins with, the code, what it is, why not, what to do.
struct Anonymous {
    link: &'static str,
    code: &'static str,
    name: &'static str,
    why: &'static str,
    remedy: &'static str,
}

const fn later(link: &'static str, code: &'static str, name: &'static str, why: &'static str) -> Anonymous {
    Anonymous { link, code, name, why, remedy: LATER }
}

const fn never(link: &'static str, code: &'static str, name: &'static str, why: &'static str) -> Anonymous {
    Anonymous { link, code, name, why, remedy: NEVER }
}

const ANONYMOUS: &[Anonymous] = &[
    never("anon_inode:[fanotify]", "file/fanotify", "fanotify", "others wait for its answers"),
    never(
        "anon_inode:[io_uring]",
        "file/io_uring",
        "io_uring",
        "the kernel doesn't show requests that are under way",
    ),
    never(
        "anon_inode:[userfaultfd]",
        "file/userfaultfd",
        "userfaultfd",
        "the kernel doesn't show what it registered",
    ),
    never(
        "anon_inode:[perf_event]",
        "file/perf_event",
        "perf event",
        "it counts on this processor and this kernel",
    ),
    never("anon_inode:bpf-", "file/bpf", "BPF object", "it lives in this kernel"),
    never("anon_inode:bpf_link", "file/bpf", "BPF link", "it lives in this kernel"),
    never("anon_inode:kvm-", "file/kvm", "virtual machine", "its state is in this kernel and this processor"),
    never(
        "anon_inode:[landlock-ruleset]",
        "file/landlock",
        "landlock ruleset",
        "the kernel doesn't show its rules",
    ),
    never(
        "anon_inode:seccomp notify",
        "file/seccomp",
        "seccomp listener",
        "other processes wait for its answers",
    ),
    never("anon_inode:[fscontext]", "file/mount", "half-made mount", "the kernel doesn't show it"),
    never("anon_inode:sync_file", "file/dma", "fence", "it belongs to a device"),
    never("anon_inode:dmabuf", "file/dma", "DMA buffer", "it belongs to a device"),
    never("/dmabuf:", "file/dma", "DMA buffer", "it belongs to a device"),
    never("/secretmem", "file/secretmem", "secret memory", "only its owner can read it"),
    later("/memfd:", "file/hugetlb", "memfd of huge pages", "huge pages aren't saved yet"),
    never("mnt:[", "file/namespace", "namespace", "namespaces aren't saved yet"),
    never("net:[", "file/namespace", "namespace", "namespaces aren't saved yet"),
    never("pid:[", "file/namespace", "namespace", "namespaces aren't saved yet"),
    never("user:[", "file/namespace", "namespace", "namespaces aren't saved yet"),
    never("uts:[", "file/namespace", "namespace", "namespaces aren't saved yet"),
    never("ipc:[", "file/namespace", "namespace", "namespaces aren't saved yet"),
    never("time:[", "file/namespace", "namespace", "namespaces aren't saved yet"),
    never("cgroup:[", "file/namespace", "namespace", "namespaces aren't saved yet"),
];

/// The lines of the documentation for what is refused.
pub(super) fn support() -> Vec<Support> {
    let line = |kind, not_kept| Support { kind, kept: "", not_kept, privilege: "", workload: "" };
    let mut lines = vec![
        line(
            "file/deleted",
            "a file or a directory whose name was removed, of a kind or file system that isn't kept: refused",
        ),
        line(
            "file/other-name",
            "a file whose name was removed, and that has another that isn't found: refused",
        ),
        line("file/fifo", "a FIFO that its path doesn't lead to: refused"),
        line("socket/unix", "Unix sockets: refused for now, but for the root's stdio"),
        line("socket/tcp", "TCP sockets: refused for now"),
        line("socket/udp", "UDP sockets: refused for now"),
        line("socket/netlink", "netlink sockets: refused for now"),
        line("socket/packet", "packet sockets: refused for now"),
        line("socket/other", "other sockets: refused for now"),
        line("terminal/master", "the master side of a pseudo terminal: refused for now"),
        line("terminal/other", "a terminal that is nobody's stdio, nor the controlling one: refused"),
        line("device/unknown", "devices other than null, zero, full, random, urandom: refused"),
    ];
    for one in ANONYMOUS {
        if !lines.iter().any(|line| line.kind == one.code) {
            lines.push(line(one.code, one.why));
        }
    }
    lines
}

impl Kind for Refused {
    fn support(&self) -> Support {
        Support { kind: NAME, kept: "", not_kept: "everything else: refused", privilege: "", workload: "" }
    }

    fn records(&self) -> &'static [&'static str] {
        &[]
    }

    fn claims(&self, _: &Seen, _: &Scene<'_>) -> bool {
        true
    }

    fn collect(&self, file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
        let link = file.link.as_os_str().as_bytes();
        if let Some(one) = ANONYMOUS.iter().find(|one| link.starts_with(one.link.as_bytes())) {
            // A regular file may be called /memfd:x too.
            if file.reach != Reach::Same {
                out.refuse(
                    scene,
                    file,
                    one.code,
                    format!("{} ({})", one.name, file.show()),
                    one.why,
                    one.remedy,
                );
                return Ok(());
            }
        }
        if file.flags & libc::O_PATH != 0 {
            let what = format!("{} (O_PATH)", file.show());
            let why = "it names a file that its path doesn't lead to";
            out.refuse(scene, file, "file/path-only", what, why, LATER);
            return Ok(());
        }
        match file.stat.kind() {
            libc::S_IFSOCK => refuse_socket(file, scene, out),
            libc::S_IFCHR | libc::S_IFBLK => {
                refuse_device(file, scene, out);
                Ok(())
            }
            libc::S_IFIFO => {
                let why = "its path doesn't lead to it any more, so it can't be opened again";
                out.refuse(scene, file, "file/fifo", format!("FIFO {}", file.show()), why, &or_vouch(file));
                Ok(())
            }
            libc::S_IFREG | libc::S_IFDIR => {
                refuse_lost(file, scene, out);
                Ok(())
            }
            _ => {
                let why = "this version doesn't know what it is";
                out.refuse(scene, file, NAME, format!("{} ({})", file.show(), type_of(file)), why, NEVER);
                Ok(())
            }
        }
    }

    fn take(&self, record: &Record, _: &mut FilesImage) -> Result<()> {
        Err(image::wrong(record, "no image has records of what is refused".into()))
    }
}

fn type_of(file: &Seen) -> &'static str {
    if file.stat.kind() == 0 { "an anonymous file" } else { type_name(file.stat.kind()) }
}

fn or_vouch(file: &Seen) -> String {
    format!("--external '{}'   if it is to be connected anew at the restart; or close it before", file.show())
}

fn refuse_lost(file: &Seen, scene: &Scene<'_>, out: &mut Collected) {
    let name = file.show();
    let (code, what, why) = match file.reach {
        Reach::Deleted if file.stat.nlink > 0 && file.stat.kind() == libc::S_IFREG => (
            "file/other-name",
            format!("{name}, which still has {} other name(s)", file.stat.nlink),
            "none of them is where it was, nor in a directory that the tree uses, so it can't be opened again",
        ),
        Reach::Deleted | Reach::Same => (
            "file/deleted",
            format!("{} ({} bytes)", name, file.stat.size),
            "its name was removed, so it can't be opened again, and what it holds isn't saved yet",
        ),
        Reach::Replaced => (
            "file/replaced",
            name,
            "its path leads to another file now: something took its place, or is mounted over it",
        ),
        Reach::Unreachable => ("file/unreachable", name, "it has no path here that leads to it"),
    };
    out.refuse(scene, file, code, what, why, LATER);
}

fn refuse_device(file: &Seen, scene: &Scene<'_>, out: &mut Collected) {
    let (major, minor) = (libc::major(file.stat.rdev), libc::minor(file.stat.rdev));
    let (code, what, why) = if file.terminal && device::is_master(file) {
        (
            "terminal/master",
            format!("{}, the master of a pseudo terminal", file.show()),
            "the terminal behind it isn't saved yet",
        )
    } else if file.terminal {
        (
            "terminal/other",
            format!("terminal {} ({major}:{minor})", file.show()),
            "it isn't the stdio of any process of the tree, nor its controlling terminal",
        )
    } else {
        (
            "device/unknown",
            format!("{} {} ({major}:{minor})", type_name(file.stat.kind()), file.show()),
            "its state is in its driver",
        )
    };
    let remedy = if code == "terminal/master" { LATER.to_owned() } else { or_vouch(file) };
    out.refuse(scene, file, code, what, why, &remedy);
}

fn refuse_socket(file: &Seen, scene: &Scene<'_>, out: &mut Collected) -> Result<()> {
    let fd = scene.duplicate(file)?;
    // A security module may forbid even this; what it is called matters less than that it is refused.
    let (code, name) = match socket::kind(fd.as_fd()) {
        Ok(kind) => name_socket(kind),
        Err(_) => ("socket/other", "socket".to_owned()),
    };
    let why = "its peer, and what is on its way, aren't saved yet";
    out.refuse(scene, file, code, format!("{name} ({})", file.show()), why, &or_vouch(file));
    Ok(())
}

fn name_socket(kind: socket::Kind) -> (&'static str, String) {
    let type_name = match kind.kind {
        libc::SOCK_STREAM => "stream",
        libc::SOCK_DGRAM => "datagram",
        libc::SOCK_SEQPACKET => "seqpacket",
        libc::SOCK_RAW => "raw",
        _ => "other",
    };
    match (kind.domain, kind.protocol) {
        (libc::AF_UNIX, _) => ("socket/unix", format!("Unix {type_name} socket")),
        (libc::AF_INET, libc::IPPROTO_TCP) => ("socket/tcp", "TCP socket".into()),
        (libc::AF_INET6, libc::IPPROTO_TCP) => ("socket/tcp", "TCP socket (IPv6)".into()),
        (libc::AF_INET, libc::IPPROTO_UDP) => ("socket/udp", "UDP socket".into()),
        (libc::AF_INET6, libc::IPPROTO_UDP) => ("socket/udp", "UDP socket (IPv6)".into()),
        (libc::AF_NETLINK, protocol) => ("socket/netlink", format!("netlink socket, protocol {protocol}")),
        (libc::AF_PACKET, _) => ("socket/packet", "packet socket".into()),
        (domain, protocol) => {
            ("socket/other", format!("{type_name} socket of family {domain}, protocol {protocol}"))
        }
    }
}
