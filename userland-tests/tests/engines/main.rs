//! The real engines, with `ringfence-runtime` as the runtime of containers: Docker, containerd, podman.
//!
//! Each is started here, on a machine of its own (`machine.rs`), and configured as docs/CONTAINERS.md has it. The driver is the
//! simulated one. Newer engines than Debian's are those that `.ci/go-programs` has built. What cannot be had here is skipped by name, and
//! printed (`cargo test -- --nocapture` shows it).
//!
//! What is the same for docker and podman is a table, or a test for each of them with each low-level runtime: what options do
//! (`options.rs`), lives (`lives.rs`), further programs (`further_programs.rs`), what is refused (`refusals.rs`). What Docker passes on as annotations is in `annotations.rs`.
//! containerd's own client is in `containerd.rs`, and
//! pods, as Kubernetes makes them, are in `pods.rs`.

mod annotations;
mod containerd;
mod docker;
mod engine;
mod every;
mod further_programs;
mod image;
mod lives;
mod machine;
mod options;
mod podman;
mod pods;
mod refusals;
