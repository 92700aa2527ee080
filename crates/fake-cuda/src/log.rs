//! The log of the driver's calls.

/// A call of the driver. Queued work is logged when it is queued, before it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A kernel.
    Launch {
        /// The device.
        device: u32,
        /// The kernel's name.
        name: String,
        /// Blocks.
        grid: [u32; 3],
        /// Threads of a block.
        block: [u32; 3],
        /// Bytes of dynamic shared memory.
        shared_bytes: u32,
    },
    /// Device memory was allocated.
    Alloc {
        /// The device.
        device: u32,
        /// The size.
        bytes: u64,
    },
    /// Device memory was freed.
    Free {
        /// The device.
        device: u32,
        /// The size.
        bytes: u64,
    },
    /// Page-locked host memory was allocated.
    AllocHost {
        /// The device.
        device: u32,
        /// The size.
        bytes: u64,
    },
    /// Page-locked host memory was freed.
    FreeHost {
        /// The device.
        device: u32,
        /// The size.
        bytes: u64,
    },
    /// A copy to the device.
    Upload {
        /// The device.
        device: u32,
        /// The size.
        bytes: u64,
    },
    /// A copy to the host.
    Download {
        /// The device.
        device: u32,
        /// The size.
        bytes: u64,
    },
    /// Device memory was set to a byte.
    Set {
        /// The device.
        device: u32,
        /// The size.
        bytes: u64,
    },
    /// Another call, or one that failed because a test requested it.
    Call {
        /// The device, if the call is about one.
        device: Option<u32>,
        /// The function's name, without a version.
        name: String,
        /// The returned status: 0, or the code that the test chose.
        code: i32,
    },
    /// A misuse, which broke the device.
    Misuse {
        /// The device, if the call is about one.
        device: Option<u32>,
        /// The misuse.
        what: String,
    },
}

impl Entry {
    /// Parses a line of the log: the device (or -1), a keyword, and its values.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (device, rest) = line.split_once(' ')?;
        let device: Option<u32> = device.parse().ok();
        let (keyword, rest) = rest.split_once(' ')?;
        let words: Vec<&str> = rest.split(' ').collect();
        let number = |place: usize| words.get(place)?.parse::<u32>().ok();
        let bytes = || words.first()?.parse::<u64>().ok();
        Some(match keyword {
            "launch" => Self::Launch {
                device: device?,
                name: (*words.first()?).to_owned(),
                grid: [number(1)?, number(2)?, number(3)?],
                block: [number(4)?, number(5)?, number(6)?],
                shared_bytes: number(7)?,
            },
            "alloc" => Self::Alloc { device: device?, bytes: bytes()? },
            "free" => Self::Free { device: device?, bytes: bytes()? },
            "alloc_host" => Self::AllocHost { device: device?, bytes: bytes()? },
            "free_host" => Self::FreeHost { device: device?, bytes: bytes()? },
            "upload" => Self::Upload { device: device?, bytes: bytes()? },
            "download" => Self::Download { device: device?, bytes: bytes()? },
            "set" => Self::Set { device: device?, bytes: bytes()? },
            "call" => Self::Call { device, name: (*words.first()?).to_owned(), code: words.get(1)?.parse().ok()? },
            "misuse" => Self::Misuse { device, what: rest.to_owned() },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed() {
        let launch = Entry::Launch {
            device: 1,
            name: "gemm_bf16".to_owned(),
            grid: [2, 3, 1],
            block: [128, 1, 1],
            shared_bytes: 49_152,
        };
        let cases = [
            ("1 launch gemm_bf16 2 3 1 128 1 1 49152", Some(launch)),
            ("0 alloc 1024", Some(Entry::Alloc { device: 0, bytes: 1024 })),
            ("0 upload 12", Some(Entry::Upload { device: 0, bytes: 12 })),
            ("-1 call cuInit 100", Some(Entry::Call { device: None, name: "cuInit".to_owned(), code: 100 })),
            ("0 misuse a b", Some(Entry::Misuse { device: Some(0), what: "a b".to_owned() })),
            ("0 other 1", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(Entry::parse(line), expected, "{line:?}");
        }
    }
}
