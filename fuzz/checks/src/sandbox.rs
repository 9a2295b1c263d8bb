//! A sandbox as its server knows it: the simulated driver, the ledger, and what is open.
//!
//! Requests are issued on it as the server issues them, and in the end nothing may be left in the ledger.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::version::DriverVersion;
use nvproxy_protocol::size::Size;
use nvproxy_server::backend::{Backend, OpenFlags};
use nvproxy_server::handles::HandleTable;
use nvproxy_server::ledger::limits::Limits;
use nvproxy_server::ledger::{self, Account, Books, Passage};
use nvproxy_server::request::{Context, Description, Executed, Files, Prepared};
use nvproxy_sim::{Configuration, Simulator};
use ringfence_ipc::Arena;

/// The release that is simulated.
const VERSION: DriverVersion = DriverVersion::new(580, 142, None);

/// What the sandbox may have: little, so that a session gets to the end of it.
fn limits() -> Limits {
    let memory = Size::of_at_least_one(8 << 20);
    Limits {
        clients: 4,
        objects: 32,
        ..Limits::with_memory(memory, memory)
    }
}

/// The tables of the simulated release, which are made once per process.
pub fn tables() -> &'static Abi {
    crate::tables::by_version(&VERSION).expect("tables of the simulated release")
}

pub struct Sandbox {
    abi: &'static Abi,
    backend: Simulator,
    pub books: Arc<Books>,
    files: Handles,
    /// In the order in which they were opened, closed ones included.
    pub given: Vec<Given>,
}

/// What an open gave.
pub struct Given {
    pub handle: u64,
    /// The task's descriptor.
    pub granted: OwnedFd,
}

/// The server's table of what is open.
pub struct Handles(HandleTable<Description>);

impl Files for Handles {
    fn file(&self, handle: u64) -> Result<Description, Errno> {
        self.0.get(handle).cloned()
    }
}

impl Sandbox {
    pub fn new(abi: &'static Abi) -> Sandbox {
        let mut configuration = Configuration::new(VERSION, abi, vec![0, 1]);
        configuration.memory = 16 << 20;
        configuration.register_gpu = Duration::ZERO;
        Sandbox {
            abi,
            backend: Simulator::new(configuration).expect("a simulator"),
            books: Books::new(limits()),
            files: Handles(HandleTable::default()),
            given: Vec::new(),
        }
    }

    /// Closes everything, with which the ledger has to be empty.
    pub fn end(self) {
        drop((self.files, self.given));
        assert_eq!(self.books.left(&self.backend), None);
    }

    /// Opens a node, if there is one of this number.
    pub fn open(&mut self, node: u64) {
        let Some(node) = Node::from_wire(node) else {
            return;
        };
        if let Ok(opened) = self.backend.open(node, OpenFlags::default()) {
            let file = opened.file.expect("the simulated driver keeps every file");
            let handle = self.files.0.insert(|handle| Description {
                file,
                account: Account::new(&self.books, handle),
            });
            self.given.push(Given {
                handle: handle.expect("a handle"),
                granted: opened.granted,
            });
        }
    }

    /// Closes what has this handle, if anything does.
    pub fn close(&mut self, handle: u64) {
        let was_open = self.files.file(handle).is_ok();
        assert_eq!(self.files.0.remove(handle).is_ok(), was_open);
        assert!(self.files.file(handle).is_err(), "a closed handle");
    }

    /// What preparing a request needs whose payload lies in `arena`.
    pub fn context<'a>(&'a self, arena: &'a Arena) -> Context<'a, Handles> {
        Context {
            abi: self.abi,
            backend: &self.backend,
            files: &self.files,
            arena,
        }
    }

    /// Issues a request, if the ledger admits it.
    pub fn issue<'a>(&'a self, prepared: Prepared, passage: Passage<'a>) -> Executed {
        match self.books.admit(&self.backend, &prepared, passage) {
            Ok(admission) => {
                let mut executed = prepared.execute(&self.backend);
                self.books.settle(&self.backend, admission, &mut executed);
                executed
            }
            Err(status) => ledger::answer(prepared, status),
        }
    }
}
