//! Numbers and bytes in a row, as a recording's body is made of them: unsigned numbers in LEB128, signed ones in its
//! zigzag form, byte strings behind their length. What is read is bounded by what is there.

/// Appends to a body.
#[derive(Default)]
pub struct Encoder(pub Vec<u8>);

impl Encoder {
    pub fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn signed(&mut self, value: i32) {
        let zigzag = (value << 1) ^ (value >> 31);
        self.number(u64::from(zigzag as u32));
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

/// Reads from a body. `None`: it does not hold what is asked for.
pub struct Decoder<'a>(pub &'a [u8]);

impl<'a> Decoder<'a> {
    pub fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub fn word(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    pub fn signed(&mut self) -> Option<i32> {
        let zigzag = self.word()?;
        Some((zigzag >> 1) as i32 ^ -((zigzag & 1) as i32))
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A number of things that follow, each of which takes a byte at least.
    pub fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX];
        let signed = [0, -1, 1, i32::MIN, i32::MAX];
        let mut encoder = Encoder::default();
        numbers.iter().for_each(|value| encoder.number(*value));
        signed.iter().for_each(|value| encoder.signed(*value));
        encoder.bytes(b"bytes");
        let mut decoder = Decoder(&encoder.0);
        numbers
            .iter()
            .for_each(|value| assert_eq!(decoder.number(), Some(*value)));
        signed
            .iter()
            .for_each(|value| assert_eq!(decoder.signed(), Some(*value)));
        assert_eq!(decoder.bytes(), Some(&b"bytes"[..]));
        assert_eq!(decoder.0, b"");
    }

    #[test]
    fn what_is_not_there_is_not_read() {
        assert_eq!(Decoder(&[]).number(), None);
        assert_eq!(Decoder(&[0x80]).number(), None);
        assert_eq!(Decoder(&[0xff; 11]).number(), None);
        // The tenth byte has room for one bit.
        assert_eq!(
            Decoder(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]).number(),
            None
        );
        assert_eq!(Decoder(&[0x80, 0x80, 0x80, 0x80, 0x10]).word(), None);
        assert_eq!(Decoder(&[3, 1, 2]).bytes(), None);
        assert_eq!(Decoder(&[3, 1, 2]).count(), None);
    }
}
