//! `/proc/sysvipc/{shm,msg,sem}`: the System V objects of the reader's IPC namespace (man 5 proc_sysvipc, man 7 sysvipc).
//!
//! Columns are found by their names in the first line. Pids are those of the namespace that `/proc` was mounted in.
//!
//! Privilege: none. Kernel: CONFIG_SYSVIPC, else there are no such files.

use std::collections::HashMap;

use super::text::{self, missing};
use crate::error::Result;
use crate::fs;

/// What all three sorts of objects have, with those who used them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its id.
    pub id: i32,
    /// Its key; 0 for IPC_PRIVATE.
    pub key: i32,
    /// Of a set: how many semaphores.
    pub semaphores: u32,
    /// The pids of who made or used it, as far as this file tells: of a segment its maker's and the last user's, of a queue
    /// the last sender's and the last receiver's. 0 for nobody.
    pub pids: Vec<i32>,
}

/// The three sorts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sort {
    /// Shared memory segments.
    Segment,
    /// Message queues.
    Queue,
    /// Semaphore sets.
    Set,
}

impl Sort {
    /// All of them.
    pub const ALL: [Sort; 3] = [Sort::Segment, Sort::Queue, Sort::Set];

    /// The file's name, as in `ipcs -m`, `-q`, `-s`, and the column of ids, and those of pids.
    fn columns(self) -> (&'static str, &'static str, &'static [&'static str]) {
        match self {
            Sort::Segment => ("shm", "shmid", &["cpid", "lpid"]),
            Sort::Queue => ("msg", "msqid", &["lspid", "lrpid"]),
            Sort::Set => ("sem", "semid", &[]),
        }
    }

    /// `shm`, `msg` or `sem`.
    pub fn name(self) -> &'static str {
        self.columns().0
    }
}

/// All objects of a sort; none where the kernel has no such objects.
///
/// # Errors
/// The file's; EPROTO where it isn't as the kernel writes it.
pub fn read(sort: Sort) -> Result<Vec<Object>> {
    match fs::read_all(format!("/proc/sysvipc/{}", sort.name())) {
        Err(e) if e.is(libc::ENOENT) => Ok(Vec::new()),
        text => parse(sort, &text?),
    }
}

/// Reads such a file's text.
///
/// # Errors
/// EPROTO, as above.
pub fn parse(sort: Sort, text: &[u8]) -> Result<Vec<Object>> {
    let (file, id, pids) = sort.columns();
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let head = lines.next().ok_or_else(|| missing(file, "the first line"))?;
    let columns: HashMap<&[u8], usize> =
        text::fields(head).enumerate().map(|(at, name)| (name, at)).collect();
    let mut objects = Vec::new();
    for line in lines {
        let values: Vec<&[u8]> = text::fields(line).collect();
        let number = |column: &str| -> Result<i64> {
            let value = columns.get(column.as_bytes()).and_then(|at| values.get(*at));
            let value = value.ok_or_else(|| missing(file, column))?;
            text::number(file, column, value)
        };
        objects.push(Object {
            id: number(id)? as i32,
            key: number("key")? as i32,
            semaphores: if sort == Sort::Set { number("nsems")? as u32 } else { 0 },
            pids: pids.iter().map(|pid| number(pid).map(|pid| pid as i32)).collect::<Result<_>>()?,
        });
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let queues = b"       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n\
              4711         32769   600           5          1   812     0     0     0     0     0 1700000000          0 1700000000\n";
        let queue = Object { id: 32769, key: 4711, semaphores: 0, pids: vec![812, 0] };
        assert_eq!(parse(Sort::Queue, queues).unwrap(), [queue]);
        let sets = b"       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n\
                -559038737          3   600          7     0     0     0     0          0 1700000000\n";
        let set = Object { id: 3, key: 0xdead_beef_u32 as i32, semaphores: 7, pids: vec![] };
        assert_eq!(parse(Sort::Set, sets).unwrap(), [set]);
        let segments = b"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n\
                 0          0  1600                  4096    10    11      1     0     0     0     0 1700000000          0 1700000000                  4096                     0\n";
        assert_eq!(parse(Sort::Segment, segments).unwrap()[0].pids, [10, 11]);
        assert!(parse(Sort::Segment, b"").is_err());
        assert!(parse(Sort::Set, b"key semid\n1 2\n").is_err(), "no number of semaphores");
    }

    #[test]
    fn this_kernels_are_read() {
        for sort in Sort::ALL {
            read(sort).unwrap();
        }
    }
}
