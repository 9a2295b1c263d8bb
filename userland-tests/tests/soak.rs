//! A few seconds of `cargo run -p userland-tests --bin soak -- --minutes 30`.

use std::time::Duration;

use userland_tests::soak::{Options, run};

#[test]
fn nothing_is_left_over() {
    let options = Options {
        time: Duration::from_secs(5),
        seed: 1,
        driver: "sim".to_owned(),
        programs: Vec::new(),
    };
    println!("seed {}", options.seed);
    let summary = run(&options, |summary, usage| println!("{summary};{usage}"));
    assert!(summary.generations > 0 && summary.sandboxes > 0);
}
