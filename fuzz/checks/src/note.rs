//! Words in which an end notes on which processor it is. No reference knows where a thread is, so what is found in
//! such a word is taken over if it is possible.

/// The most processors that Linux can have on x86-64 (NR_CPUS_RANGE_END, arch/x86/Kconfig).
const MAXIMUM_PROCESSORS: u64 = 8192;

/// Takes over a note: a processor's number, plus one.
pub fn admit(expected: &mut [u8], found: &[u8]) {
    if expected != found {
        let noted = number(found);
        assert!(
            (1..=MAXIMUM_PROCESSORS).contains(&noted),
            "{noted} is no processor"
        );
        expected.copy_from_slice(found);
    }
}

fn number(word: &[u8]) -> u64 {
    u64::from_ne_bytes(word.try_into().expect("a word"))
}
