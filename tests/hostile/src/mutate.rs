//! Mutations of a corpus, the same ones in every run.

/// Bytes of an input: longer ones find nothing that shorter ones do not.
const MAX_INPUT_BYTES: usize = 64 << 10;

/// Numbers that break code which trusts a length.
const LENGTHS: [u64; 10] =
    [0, 1, 0x7f, 0xff, 0x7fff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX - 7, u64::MAX];

/// Values that break code which trusts a text.
const WORDS: [&[u8]; 14] = [
    b"0",
    b"-1",
    b"18446744073709551615",
    b"9223372036854775807",
    b"4294967296",
    b"1e309",
    b"1000000000000",
    b"null",
    b"[]",
    b"{}",
    b"\"\"",
    b"true",
    b"\xff\xfe",
    b"[[[[[[[[",
];

/// `count` inputs, each made from one of `seeds` by one to four changes.
pub fn mutations(seeds: &[Vec<u8>], count: u64) -> impl Iterator<Item = (u64, Vec<u8>)> + '_ {
    (0..count).map(|number| (number, mutation(seeds, number)))
}

fn mutation(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut random = Random(number.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut bytes = seeds.get(random.below(seeds.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(4) {
        change(&mut bytes, seeds, &mut random);
    }
    bytes.truncate(MAX_INPUT_BYTES);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = (at + random.below(64)).min(bytes.len());
    match random.below(9) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.below(256) as u8;
            }
        }
        2 => bytes.truncate(at),
        3 => {
            let number = LENGTHS[random.below(LENGTHS.len())].to_le_bytes();
            let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&number[..width]);
        }
        4 => {
            let copy = bytes[at..end].repeat(1 + random.below(8));
            bytes.splice(at..at, copy);
        }
        5 => drop(bytes.drain(at..end)),
        6 => drop(bytes.splice(number_at(bytes, at), WORDS[random.below(WORDS.len())].iter().copied())),
        7 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            let to = (from + random.below(256)).min(other.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        _ => {
            let word = WORDS[random.below(WORDS.len())];
            bytes.splice(at..at, word.repeat(1 + random.below(40)));
        }
    }
}

/// The range of the first number after `at`.
fn number_at(bytes: &[u8], at: usize) -> std::ops::Range<usize> {
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let start = bytes[at..].iter().position(u8::is_ascii_digit).map_or(at, |found| at + found);
    start..start + digits(start)
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) as usize % limit.max(1)
    }
}
