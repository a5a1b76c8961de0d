//! What an image needs of the host it restarts on: the processor's features, the page size.
//!
//! A program that has looked at the processor once goes on using what it found, so a host must have every feature the
//! first one had: `/proc/cpuinfo`'s flags that user code can use. The kernel's vdso is compared by the memory family.

use bardo_image::Host;
use bardo_kernel::{arch, fs};

use crate::error::{Doing, Error, Refusal, Result};

/// Flags of `/proc/cpuinfo` that user code can tell apart (arch/x86/include/asm/cpufeatures.h): instruction sets.
const INSTRUCTION_SETS: &[&str] = &[
    "sse3",
    "pni",
    "ssse3",
    "sse4_1",
    "sse4_2",
    "popcnt",
    "aes",
    "pclmulqdq",
    "fma",
    "movbe",
    "avx",
    "f16c",
    "rdrand",
    "avx2",
    "bmi1",
    "bmi2",
    "erms",
    "fsrm",
    "adx",
    "rdseed",
    "sha_ni",
    "clflushopt",
    "clwb",
    "avx512f",
    "avx512dq",
    "avx512cd",
    "avx512bw",
    "avx512vl",
    "avx512ifma",
    "avx512vbmi",
    "avx512_vbmi2",
    "avx512_vnni",
    "avx512_bitalg",
    "avx512_vpopcntdq",
    "avx512_fp16",
    "avx512_bf16",
    "avx_vnni",
    "gfni",
    "vaes",
    "vpclmulqdq",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "abm",
    "lzcnt",
    "xsave",
    "xsaveopt",
    "xsavec",
    "fsgsbase",
    "rdtscp",
    "cx16",
    "lahf_lm",
    "sse4a",
    "rtm",
    "movdiri",
    "movdir64b",
    "serialize",
    "pku",
    "ospke",
];

/// What this host has.
#[derive(Debug, Clone)]
pub struct Needs {
    kernel: String,
    features: Vec<String>,
}

impl Needs {
    /// Looks at this host.
    pub fn of_this_host() -> Result<Needs> {
        let kernel =
            fs::read_text("/proc/sys/kernel/osrelease").doing("reading the kernel's release", None)?;
        let cpuinfo = fs::read_text("/proc/cpuinfo").doing("reading the processor's features", None)?;
        let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let features =
            INSTRUCTION_SETS.iter().filter(|f| flags.contains(f)).map(|f| (*f).to_owned()).collect();
        Ok(Needs { kernel: kernel.trim().to_owned(), features })
    }

    /// Writes it into a header.
    pub fn describe(&self, host: &mut Host) {
        host.arch = arch::NAME.to_owned();
        host.kernel = self.kernel.clone();
        host.page_size = bardo_image::PAGE as u32;
        host.cpu = self.features.clone();
    }

    /// Whether an image of that host can run on this one.
    ///
    /// # Errors
    /// [`Error::Unfit`] with everything that is missing.
    pub fn check(&self, image: &Host) -> Result<()> {
        let mut unfit = Vec::new();
        let mut miss = |code, what: String, why: &str, remedy: &str| {
            unfit.push(Refusal { who: None, fd: None, what, code, why: why.into(), remedy: remedy.into() });
        };
        if image.arch != arch::NAME {
            miss(
                "host/arch",
                format!("the image is of a {} machine, this one is {}", image.arch, arch::NAME),
                "registers and code of one architecture mean nothing to another",
                "restart it on such a machine",
            );
        } else {
            let missing: Vec<&str> = image
                .cpu
                .iter()
                .map(String::as_str)
                .filter(|f| !self.features.iter().any(|have| have == f))
                .collect();
            if !missing.is_empty() {
                miss(
                    "host/cpu",
                    format!("this processor lacks {}", missing.join(", ")),
                    "the programs may have chosen their code by these features when they started",
                    "restart it on a processor that has them",
                );
            }
        }
        if image.page_size != bardo_image::PAGE as u32 {
            miss(
                "host/page-size",
                format!("the image has pages of {} bytes", image.page_size),
                "memory can't be laid out the same way",
                "restart it on a kernel with that page size",
            );
        }
        if unfit.is_empty() { Ok(()) } else { Err(Error::Unfit(unfit)) }
    }
}
