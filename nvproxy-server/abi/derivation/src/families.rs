//! The families of requests: each has numbers of its own.

/// One thing for each family of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByFamily<T> {
    pub frontend: T,
    pub control: T,
    pub class: T,
    pub uvm: T,
}
