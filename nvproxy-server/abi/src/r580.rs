//! The tables of the 580 branch. The layouts are those of the tag 580.142; the other releases of the branch whose source
//! is public, 580.65.06 to 580.126.20, agree in every row.
//!
//! The modules below are data: rows sorted by id, sizes and offsets in bytes as a C compiler gives them for the driver's
//! headers, so that a program can write the tables of another release in the same form.

mod class;
mod control;
mod frontend;
mod names;
mod uvm;

use crate::{Abi, Names};

pub(crate) static ABI: Abi = Abi {
    branch: 580,
    frontend: frontend::FRONTEND,
    control: control::CONTROL,
    class: class::CLASS,
    uvm: uvm::UVM,
    names: Names {
        frontend: names::FRONTEND,
        control: names::CONTROL,
        class: names::CLASS,
        uvm: names::UVM,
    },
};
