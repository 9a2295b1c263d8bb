//! The catalogue that the crate carries: whole, and refused if it is not.

use nvproxy_abi::CATALOGUE;
use nvproxy_abi_catalogue::Catalogue;

#[test]
fn it_has_the_releases_that_have_tables() {
    let catalogue = Catalogue::decode(CATALOGUE).expect("a catalogue");
    let known = catalogue.releases.iter().map(|release| release.version);
    assert!(known.eq(nvproxy_abi::releases()));
}

#[test]
fn a_flipped_bit_anywhere_is_an_error() {
    let mut bytes = CATALOGUE.to_vec();
    // Every bit of the header, and one of each 97 bytes of the rest.
    let positions = (0..32 * 8).chain((32 * 8..bytes.len() * 8).step_by(97 * 8 + 1));
    for position in positions {
        let (at, bit) = (position / 8, 1 << (position % 8));
        bytes[at] ^= bit;
        assert!(Catalogue::decode(&bytes).is_err(), "bit {position}");
        bytes[at] ^= bit;
    }
}

#[test]
fn a_truncated_file_is_an_error() {
    for length in (0..CATALOGUE.len()).step_by(101) {
        assert!(
            Catalogue::decode(&CATALOGUE[..length]).is_err(),
            "{length} bytes"
        );
    }
}
