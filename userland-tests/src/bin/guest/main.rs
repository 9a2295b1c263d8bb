//! The program that the end-to-end tests run in a sandbox: one scenario per run.
//!
//! A scenario checks what only the program itself can see, and prints the rest for the test to compare. What goes wrong
//! ends it with a panic or an error, and so with a status that no test accepts.

mod children;
mod concurrency;
mod confinement;
mod contest;
mod conversation;
mod core_limit;
mod descriptors;
mod dispatched;
mod diverted;
mod dma_buf;
mod faults;
mod firmware;
mod given;
mod gpu;
mod greed;
mod host_memory;
mod identifiers;
mod in_flight;
mod input;
mod interruptions;
mod isolation;
mod kept_with_descriptions;
mod kernel_files;
mod lent;
mod limits;
mod load;
mod locked;
mod mapped_host_memory;
mod mapped_memory;
mod memory_limit;
mod older_requests;
mod on_oneself;
mod other_mounts;
mod outside;
mod ownership;
mod parts;
mod pinning;
mod pins;
mod pins_beside;
mod pins_counted;
mod pins_outside;
mod pointers;
mod refusals;
mod releases;
mod set_ids;
mod sharing;
mod signals;
mod soak;
mod survey;
mod tasks;
mod temporary;
mod tenants;
mod unfiltered;
mod unified_memory;
mod users;
mod walk;
mod words;

use std::error::Error;
use std::process::ExitCode;

/// How a scenario ends.
type Outcome = Result<(), Box<dyn Error>>;
/// A scenario, given its arguments.
type Scenario = fn(&[String]) -> Outcome;

const SCENARIOS: &[(&str, Scenario)] = &[
    ("blocking", concurrency::blocking),
    ("crowd", concurrency::crowd),
    ("processes", concurrency::processes),
    ("shared-client", concurrency::shared_client),
    ("threads", concurrency::threads),
    (
        "threads-on-unified-memory",
        concurrency::threads_on_unified_memory,
    ),
    ("own-descriptors", concurrency::own_descriptors),
    (
        "without-the-first-thread",
        concurrency::without_the_first_thread,
    ),
    ("contest", contest::contest),
    ("ways-around", confinement::ways_around),
    ("held", confinement::held),
    ("native-opens", confinement::native_opens),
    ("open-node", confinement::open_node),
    ("raced-open", confinement::raced_open),
    ("visible", confinement::visible),
    ("converse", conversation::converse),
    ("pin-until-lost", conversation::pin_until_lost),
    ("bad-descriptors", descriptors::bad),
    ("batch", faults::batch),
    ("beside-a-slow-one", faults::beside_a_slow_one),
    ("doomed", faults::doomed),
    ("hoard", faults::hoard),
    ("large", faults::large),
    ("many", faults::many),
    ("requests", faults::requests),
    ("requests-until-one-fails", faults::requests_until_one_fails),
    ("questions", faults::questions),
    ("survey", survey::scenario),
    ("generations-on-demand", soak::generations_on_demand),
    ("greed", greed::greed),
    ("in-flight", in_flight::in_flight),
    ("identifiers", identifiers::ask),
    ("calls", isolation::calls),
    ("namespaces-by-ioctl", isolation::namespaces_by_ioctl),
    ("other-mounts", other_mounts::look),
    ("forbidden", isolation::forbidden),
    ("given", given::scenario),
    ("network", isolation::network),
    ("reconnected", isolation::reconnected),
    ("permit", isolation::permit),
    ("knock", isolation::knock),
    ("look", isolation::look),
    ("read", isolation::read),
    ("set-ids", set_ids::scenario),
    ("core-limit", core_limit::scenario),
    ("surroundings", isolation::surroundings),
    ("terminals", isolation::terminals),
    ("write", isolation::write),
    ("ends-under-signals", interruptions::ends),
    ("opens-under-signals", interruptions::opens),
    ("larger-input", input::larger),
    ("kernel-files", kernel_files::list),
    ("load", load::load),
    ("memory-limit", limits::memory),
    ("limit", memory_limit::ways),
    ("limit-shown", memory_limit::shown),
    ("limit-copies", memory_limit::copies),
    ("limit-exports", memory_limit::exports),
    ("limit-mappings", mapped_memory::ways),
    ("limit-gpus", memory_limit::gpus),
    ("limit-threads", memory_limit::threads),
    ("limit-held", memory_limit::held),
    ("limit-taken", memory_limit::taken),
    ("limit-by-flags", older_requests::by_flags),
    ("older-memory", older_requests::without_memory),
    ("older-untold", older_requests::untold),
    ("older-shown", older_requests::shown),
    ("older-events", older_requests::events),
    ("limit-host", host_memory::requests),
    ("limit-host-keepers", host_memory::keepers),
    ("limit-host-records", host_memory::records),
    ("limit-host-events", host_memory::events),
    ("limit-host-default", host_memory::default),
    ("limit-host-threads", host_memory::threads),
    ("limit-host-regions", host_memory::regions),
    ("limit-host-spaces", host_memory::spaces),
    ("limit-host-left", host_memory::left),
    ("limit-host-unheard", host_memory::unheard),
    ("limit-host-unwritten", host_memory::unwritten),
    ("limit-host-unmapping", host_memory::unmapping),
    ("limit-host-tables", kept_with_descriptions::tables),
    ("event-data", kept_with_descriptions::event_data),
    ("map-host-memory", mapped_host_memory::once),
    ("limit-host-mapped", mapped_host_memory::again_and_again),
    ("limit-host-mapped-kept", mapped_host_memory::kept),
    ("limit-host-mapped-pinned", mapped_host_memory::pinned),
    ("limit-host-mapped-back", mapped_host_memory::given_back),
    ("dma-buf", dma_buf::made),
    ("dma-buf-foreign", dma_buf::foreign),
    ("dma-buf-closing", dma_buf::closing),
    ("dma-buf-limit", dma_buf::limit),
    ("dma-buf-records", dma_buf::records),
    ("dma-bufs-on-demand", dma_buf::on_demand),
    ("dma-buf-apart", dma_buf::apart),
    ("open-only", refusals::open_only),
    ("parts", parts::named),
    ("parts-forged", parts::forged),
    ("foreign-clients", ownership::foreign_clients),
    ("shared-spaces", ownership::shared_spaces),
    ("named-gpus", tenants::named),
    ("told-gpus", tenants::told),
    ("told-processes", tenants::utilization),
    ("block-size", tenants::block_size),
    ("check-releases", tenants::releases),
    ("values-for-all", tenants::values),
    ("chosen-clients", tenants::chosen),
    ("many-clients", ownership::many_clients),
    ("pin-private", pins::private),
    ("pin-shared", pins::shared),
    ("pin-refused", pins::refused),
    ("pin-among-threads", pins::among_threads),
    ("pin-from-two-threads", pins::from_two_threads),
    ("pin-during-blocking", pins::during_blocking),
    ("pin-under-signals", pins::under_signals),
    ("pin-beside-signals", pins::beside_signals),
    ("pin-killed", pins::killed),
    ("pin-watched", pins::watched),
    ("pin-handed-out", pins_outside::handed_out),
    ("pin-stopped", pins_outside::stopped),
    ("pin-without-descriptors", pins::without_descriptors),
    ("pin-that-fails", pins::that_fails),
    ("pin-beside-vfork", pins::beside_vfork),
    ("pin-beside-locks", pins_beside::locks),
    ("pin-beside-executions", pins_beside::executions),
    ("pin-beside-a-chain", pins_beside::chain),
    ("pin-beside-chains", pins_beside::chains),
    ("pin-copied", pins_counted::copied),
    ("pin-on-a-closed-node", pins_counted::on_a_closed_node),
    ("pin-answered", lent::under_an_answering_filter),
    ("execute", pins_beside::execute),
    ("pin-as-users", users::pins),
    ("pin-as-another", users::pins_as_another),
    ("users-apart", users::apart),
    ("pin-restarted", diverted::restarted),
    ("pin-altered", diverted::altered),
    ("pin-crowded", diverted::crowded),
    ("pin-killed-behind-vfork", diverted::killed_behind_vfork),
    ("pin-dispatched", dispatched::pins),
    ("pin-replaced", diverted::replaced),
    ("lent", lent::beside_another),
    ("pin-killed-thread", lent::under_a_killing_filter),
    ("pin-stopped-for-ever", pins::stopped_for_ever),
    ("bad-pointers", pointers::bad),
    ("made-up", refusals::made_up),
    ("firmware", firmware::run),
    ("instructions", firmware::instructions),
    ("flood", refusals::flood),
    ("fill", temporary::run),
    ("statuses", refusals::statuses),
    ("unknown", refusals::unknown),
    ("close", releases::close),
    ("close-events", releases::close_events),
    ("generations", releases::generations),
    ("killed", releases::killed),
    ("export", sharing::export),
    ("pass", sharing::pass),
    ("memory-policy", on_oneself::memory_policy),
    ("of-another", on_oneself::of_another),
    ("fetched", on_oneself::fetched),
    ("fetch-from-outside", on_oneself::from_outside),
    ("queue", on_oneself::queue),
    ("locks", locked::as_programs_do),
    ("marked", locked::marked),
    ("unmark", locked::unmark),
    ("reach", outside::reach),
    ("reach-groups", outside::reach_groups),
    ("signal-owner", outside::signal_owner),
    ("steal", outside::steal),
    ("busy", signals::busy),
    ("counting", signals::counting),
    ("handler", signals::handler),
    ("idle", signals::idle),
    ("interrupted", signals::interrupted),
    ("raise", signals::raise),
    ("duplicates", tasks::duplicates),
    ("exec", tasks::exec),
    ("greedy", tasks::greedy),
    ("exec-closed", tasks::exec_closed),
    ("exec-inherited", tasks::exec_inherited),
    ("fork", tasks::fork),
    ("take-all-processes", tasks::take_all_processes),
    ("misnamed", tasks::misnamed),
    ("reused", tasks::reused),
    ("spawn", tasks::spawn),
    ("unfiltered", unfiltered::scenario),
    ("uvm", unified_memory::walk),
    ("walk", walk::walk),
    ("every-word", words::every),
    ("exchanged", words::exchanged),
    ("foreign-words", words::foreign),
    ("narrow", words::narrow),
    ("own-words", words::of_one_file_system),
    ("types", words::types),
    ("ordinary-words", words::ordinary),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("", String::as_str);
    let Some((_, scenario)) = SCENARIOS.iter().find(|(known, _)| *known == name) else {
        eprintln!("guest: no scenario '{name}'");
        return ExitCode::from(2);
    };
    match scenario(arguments.get(1..).unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {name}: {error}");
            ExitCode::FAILURE
        }
    }
}
