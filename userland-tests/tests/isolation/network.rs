//! The network, and sockets of the host.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketType, socket};
use userland_tests::{guest_under, guest_under_with};

use super::*;

/// Sockets of the host: a port, a path, an abstract name.
struct Sockets {
    port: TcpListener,
    path: PathBuf,
    name: String,
    _directory: Directory,
    _listeners: [UnixListener; 2],
}

impl Sockets {
    fn new(name: &str) -> Sockets {
        let directory = Directory::new(name);
        let path = directory.path().join("socket");
        let name = format!("ringfence-test-{}-{name}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        Sockets {
            port: TcpListener::bind("127.0.0.1:0").expect("a port"),
            _listeners: [
                UnixListener::bind(&path).expect("a socket"),
                UnixListener::bind_addr(&address).expect("a socket"),
            ],
            path,
            name,
            _directory: directory,
        }
    }

    /// The guest's scenario that tries them.
    fn scenario(&self) -> [String; 4] {
        let port = self.port.local_addr().expect("an address").port();
        let path = text(&self.path).to_owned();
        [
            "network".to_owned(),
            port.to_string(),
            path,
            self.name.clone(),
        ]
    }

    fn tried_with(&self, options: &[&str]) -> String {
        let ended = finish(&mut guest_with(options, &self.scenario()));
        assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{ended:?}");
        ended.stdout
    }
}

#[test]
fn the_hosts_network_and_sockets_are_out_of_reach() {
    let sockets = Sockets::new("unreachable");
    let expected =
        "only lo: true\nport: ECONNREFUSED\npath: ENOENT\nabstract: ECONNREFUSED\nitself: ok\n";
    assert_eq!(sockets.tried_with(&[]), expected);
}

#[test]
fn the_callers_network_can_be_given() {
    let sockets = Sockets::new("reachable-network");
    let stdout = sockets.tried_with(&["--net"]);
    let (_, stdout) = stdout.split_once('\n').expect("several lines");
    let connected = if linux::has(Feature::LandlockScopes) {
        "EPERM"
    } else {
        "ok"
    };
    let expected = format!("port: ok\npath: ENOENT\nabstract: {connected}\nitself: ok\n");
    assert_eq!(stdout, expected);
}

/// The test above can fail: with the caller's network and no domain in the way, an abstract socket of the caller's is
/// reached.
#[test]
fn abstract_sockets_are_reached_if_no_domain_keeps_connections_in() {
    let sockets = Sockets::new("unscoped-network");
    let (rules, scenario) = ("sentry.scope=drop", sockets.scenario());
    let ended = finish(&mut guest_under_with(rules, &["--net"], &scenario));
    assert!(ended.stdout.contains("abstract: ok\n"), "{ended:?}");
}

/// Runs a guest that has `socket` for its standard input, and connects it to this port instead.
fn reconnected(mut guest: Command, socket: impl Into<OwnedFd>) -> Ended {
    finish(guest.stdin(Stdio::from(socket.into())))
}

#[test]
fn no_network_is_reached_by_a_socket_of_the_callers() {
    let [given, other] = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let connected = || TcpStream::connect(given.local_addr().expect("an address"));
    let port = other.local_addr().expect("an address").port().to_string();
    let scenario = ["reconnected", &port];
    let refused = "ringfence: descriptor 0 is an internet socket, by which the program would reach the host's network: \
                   close it, as with 0<&- in a shell, and pass on what comes there by a pipe, or give --net";
    let ended = reconnected(
        guest_with(&[], &scenario),
        connected().expect("a connection"),
    );
    assert_eq!(ended, Ended::failing(125, refused));
    // With the host's network nothing is gained by it.
    let ended = reconnected(
        guest_with(&["--net"], &scenario),
        connected().expect("a connection"),
    );
    assert_eq!(ended, Ended::printing(""));
    other.accept().expect("a connection");
    // That this can fail.
    let without = guest_under("sentry.given=drop", &scenario);
    let ended = reconnected(without, connected().expect("a connection"));
    assert_eq!(ended, Ended::printing(""));
    other.accept().expect("a connection");
}

#[test]
fn of_other_sockets_those_of_this_machine_are_inherited() {
    let run = |options: &[&str], socket: OwnedFd| {
        let mut sandbox = ringfence_run(options);
        finish(sandbox.arg("true").stdin(Stdio::from(socket)))
    };
    let (one, _other) = UnixStream::pair().expect("sockets");
    assert_eq!(run(&[], one.into()), Ended::printing(""));
    let refused = "ringfence: descriptor 0 is a socket that is neither of this machine's files (AF_UNIX) nor of the \
                   internet, by which the program would reach the host: close it, as with 0<&- in a shell, and pass on \
                   what comes there by a pipe";
    let netlink = || socket(AddressFamily::NETLINK, SocketType::DGRAM, None).expect("a socket");
    for options in [&[][..], &["--net"]] {
        assert_eq!(run(options, netlink()), Ended::failing(125, refused));
    }
}

/// Every directory in which an interface is shown. (A link in `/sys/class/net` is none.)
const INTERFACES: &str = "ls /sys/class/net; find /sys/devices -path '*/net/*' -prune";

/// `/sys` tells of the sandbox's own network. (Where the kernel gives it no `/sys` for that, as in a container that has parts of
/// it covered, this fails.)
#[test]
fn interfaces_of_the_host_are_not_shown() {
    let own = Ended::printing("lo\n/sys/devices/virtual/net/lo\n");
    let shell = ["sh", "-c", INTERFACES];
    assert_eq!(run_in(Path::new("/"), &[], &shell), own);
    if is_root() {
        let executables = Reachable::new();
        assert_eq!(executables.run_as(USER, &[], &shell), own);
        assert_eq!(run_in(Path::new("/"), &["--uid=65534"], &shell), own);
    }
    // That this can fail: so it is with the caller's network.
    let outside = finish(
        Command::new(shell[0])
            .args(&shell[1..])
            .stdin(Stdio::null()),
    );
    assert_eq!(run_in(Path::new("/"), &["--net"], &shell), outside);
    if outside == own {
        eprintln!("this machine has no other interfaces: nothing was to be hidden");
    }
}
