//! The file format: a catalogue as bytes.
//!
//! A file is a header of 20 bytes and a body compressed with deflate. The header, little endian: the magic number
//! (8 bytes), the format's version, the length of the uncompressed body, and the CRC-32 of all other bytes of the file
//! (4 bytes each). The body has the strings, then five pools (escapes, UVM requests, control commands, classes,
//! structures) with each distinct entry of any release once and in order, then the releases. A release is, for each
//! pool, which of its entries are in this release and not in the one before or the reverse. Numbers are of variable
//! length (LEB128). The same catalogue gives the same bytes.
//!
//! The reader takes any bytes. The CRC finds damage; it does not stop an author of bad files, so every number is
//! checked as well, and there are limits on what a file can make the reader allocate.

mod parts;
mod reader;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

use crate::model::{Catalogue, Class, Control, Ioctl, Release, Structure};
use crate::version::DriverVersion;
use reader::Reader;
use writer::Writer;

const MAGIC: [u8; 8] = *b"NVABI\r\n\x1a";
const FORMAT_VERSION: u32 = 1;
const HEADER: usize = 20;
const CHECKSUM_AT: usize = 16;
/// Bytes of an uncompressed body.
const MAXIMUM_BODY: usize = 32 << 20;
/// Releases of a catalogue.
const MAXIMUM_RELEASES: usize = 4096;
/// Entries of all releases together, counting each as often as it is in one. It bounds what a file can unfold to.
const MAXIMUM_ENTRIES: usize = 8 << 20;
/// The best that deflate of miniz_oxide does. The file is written seldom and read often.
const COMPRESSION_LEVEL: u8 = 10;

/// Why bytes are not a catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They do not begin as a catalogue does.
    NotACatalogue,
    /// They are of a later or earlier version of the format.
    FormatVersion(u32),
    /// The checksum is another: the file is cut off or was altered.
    Checksum,
    /// The checksum is right, but the contents are not those of a catalogue. It names what is wrong.
    Malformed(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::NotACatalogue => formatter.write_str("not a catalogue of driver releases"),
            DecodeError::FormatVersion(version) => write!(
                formatter,
                "a catalogue of driver releases in format {version}, but this program reads format {FORMAT_VERSION}"
            ),
            DecodeError::Checksum => formatter.write_str(
                "the catalogue of driver releases is damaged: its checksum does not match its contents",
            ),
            DecodeError::Malformed(what) => {
                write!(
                    formatter,
                    "the catalogue of driver releases is malformed: {what}"
                )
            }
        }
    }
}

impl std::error::Error for DecodeError {}

/// Every distinct part of the releases, each kind in its order.
#[derive(Default)]
struct Pools<'a> {
    frontend: BTreeSet<&'a Ioctl>,
    uvm: BTreeSet<&'a Ioctl>,
    controls: BTreeSet<&'a Control>,
    classes: BTreeSet<&'a Class>,
    structures: BTreeSet<(&'a str, &'a Structure)>,
}

impl Catalogue {
    /// The catalogue as a file's contents. Releases and their parts have to be in the order that the model states.
    pub fn encode(&self) -> Vec<u8> {
        let mut pools = Pools::default();
        for release in &self.releases {
            pools
                .frontend
                .extend(release.frontend.iter().map(|part| &**part));
            pools.uvm.extend(release.uvm.iter().map(|part| &**part));
            pools
                .controls
                .extend(release.controls.iter().map(|part| &**part));
            pools
                .classes
                .extend(release.classes.iter().map(|part| &**part));
            pools.structures.extend(named(release));
        }

        let mut writer = Writer::default();
        let frontend = writer.pool(pools.frontend, |writer, part| writer.ioctl(part));
        let uvm = writer.pool(pools.uvm, |writer, part| writer.ioctl(part));
        let controls = writer.pool(pools.controls, |writer, part| writer.control(part));
        let classes = writer.pool(pools.classes, |writer, part| writer.class(part));
        let structures = writer.pool(pools.structures, |writer, (name, part)| {
            writer.string(name);
            writer.structure(part);
        });

        writer.length(self.releases.len());
        let mut before = [const { Vec::new() }; 5];
        for release in &self.releases {
            writer.string(&release.version.to_string());
            let now = [
                indices(&frontend, release.frontend.iter().map(|part| &**part)),
                indices(&uvm, release.uvm.iter().map(|part| &**part)),
                indices(&controls, release.controls.iter().map(|part| &**part)),
                indices(&classes, release.classes.iter().map(|part| &**part)),
                indices(&structures, named(release)),
            ];
            for (before, now) in before.iter().zip(&now) {
                writer.changes(before, now);
            }
            before = now;
        }
        seal(&writer.finish())
    }

    /// The catalogue that [`Catalogue::encode`] made these bytes of.
    ///
    /// # Errors
    /// Any other bytes: they are refused, whatever they are, and no more than a bounded amount of memory is used.
    pub fn decode(bytes: &[u8]) -> Result<Catalogue, DecodeError> {
        let body = unseal(bytes)?;
        let mut reader = Reader::new(&body)?;
        let frontend = reader.pool(|reader| reader.ioctl().map(Rc::new))?;
        let uvm = reader.pool(|reader| reader.ioctl().map(Rc::new))?;
        let controls = reader.pool(|reader| reader.control().map(Rc::new))?;
        let classes = reader.pool(|reader| reader.class().map(Rc::new))?;
        let structures =
            reader.pool(|reader| Ok((reader.string()?, Rc::new(reader.structure()?))))?;

        let mut releases: Vec<Release> = Vec::new();
        let mut sets = [const { Vec::new() }; 5];
        let mut entries = 0usize;
        let count = reader.length()?;
        if count > MAXIMUM_RELEASES {
            return Err(DecodeError::Malformed("too many releases"));
        }
        for _ in 0..count {
            let version: DriverVersion = reader
                .string()?
                .parse()
                .map_err(|_| DecodeError::Malformed("a release has no valid version"))?;
            if releases.last().is_some_and(|last| last.version >= version) {
                return Err(DecodeError::Malformed("the releases are out of order"));
            }
            for set in &mut sets {
                reader.changes(set)?;
                entries = entries.saturating_add(set.len());
            }
            if entries > MAXIMUM_ENTRIES {
                return Err(DecodeError::Malformed("the releases have too many entries"));
            }
            let [in_frontend, in_uvm, in_controls, in_classes, in_structures] = &sets;
            releases.push(Release {
                version,
                frontend: select(&frontend, in_frontend, |_, _| true)?,
                uvm: select(&uvm, in_uvm, |_, _| true)?,
                controls: select(&controls, in_controls, |one, next| one.id < next.id)?,
                classes: select(&classes, in_classes, |one, next| one.id < next.id)?,
                structures: select(&structures, in_structures, |one, next| one.0 < next.0)?
                    .into_iter()
                    .collect(),
            });
        }
        reader.finish()?;
        Ok(Catalogue { releases })
    }
}

fn named(release: &Release) -> impl Iterator<Item = (&str, &Structure)> {
    let structures = release.structures.iter();
    structures.map(|(name, structure)| (&**name, &**structure))
}

/// The places of the parts in their pool, ascending because parts and pool are in the same order.
fn indices<T: Ord>(pool: &BTreeMap<T, u32>, parts: impl Iterator<Item = T>) -> Vec<u32> {
    parts.filter_map(|part| pool.get(&part).copied()).collect()
}

/// The parts at these places, of which any two successive ones have to be in the order that `follows` tells.
fn select<T: Clone>(
    pool: &[T],
    indices: &[u32],
    follows: impl Fn(&T, &T) -> bool,
) -> Result<Vec<T>, DecodeError> {
    let parts = indices
        .iter()
        .map(|index| pool.get(*index as usize).cloned())
        .collect::<Option<Vec<T>>>()
        .ok_or(DecodeError::Malformed(
            "a release has an entry that is not there",
        ))?;
    if parts.is_sorted_by(follows) {
        Ok(parts)
    } else {
        Err(DecodeError::Malformed(
            "a release has two entries of one id",
        ))
    }
}

/// Compresses a body and puts the header before it.
fn seal(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(MAGIC);
    bytes.extend(FORMAT_VERSION.to_le_bytes());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(compress_to_vec(body, COMPRESSION_LEVEL));
    let checksum = checksum(&bytes);
    bytes[CHECKSUM_AT..HEADER].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Checks the header and gives the uncompressed body.
fn unseal(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    if !bytes.starts_with(&MAGIC) {
        return Err(DecodeError::NotACatalogue);
    }
    let word = |at: usize| {
        let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
        word.map(|word| u32::from_le_bytes(*word))
            .ok_or(DecodeError::Checksum)
    };
    let (version, length, stored) = (word(8)?, word(12)? as usize, word(CHECKSUM_AT)?);
    if version != FORMAT_VERSION {
        return Err(DecodeError::FormatVersion(version));
    }
    if checksum(bytes) != stored {
        return Err(DecodeError::Checksum);
    }
    if length > MAXIMUM_BODY {
        return Err(DecodeError::Malformed("the body is too long"));
    }
    let body = decompress_to_vec_with_limit(&bytes[HEADER..], length)
        .map_err(|_| DecodeError::Malformed("the body cannot be decompressed"))?;
    if body.len() != length {
        return Err(DecodeError::Malformed("the body is shorter than declared"));
    }
    Ok(body)
}

/// The CRC-32 of a whole file but for the place where it is stored. The file has a whole header.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CHECKSUM_AT]);
    hasher.update(&bytes[HEADER..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests;
