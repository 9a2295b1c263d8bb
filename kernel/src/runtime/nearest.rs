//! What somebody may have meant who wrote a name that there is not.

/// How alike two names are at least, of 1 for the same: as clap has it for options.
const ALIKE: f64 = 0.7;

/// The known name that is most like this one, if one is like it at all.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let alike = known.map(|known| (strsim::jaro(name, known), known));
    let best = alike.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(likeness, _)| *likeness > ALIKE)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_name_that_is_like_none_has_no_nearest() {
        let known = ["gpu-memory", "host-memory", "on-server-exit"];
        for (name, expected) in [
            ("gpu-mem", Some("gpu-memory")),
            ("gpu_memory", Some("gpu-memory")),
            ("hostmemory", Some("host-memory")),
            ("on-server-end", Some("on-server-exit")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known.into_iter()), expected, "{name}");
        }
    }
}
