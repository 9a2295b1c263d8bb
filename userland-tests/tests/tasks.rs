//! Threads, processes and descriptors: what a task's descriptor means wherever it goes, and what is freed when.

use std::process::Command;

use userland_tests::{
    Ended, finish, guest_program, guest_under, prints, ringfence_program, showing_the_guest,
};

#[test]
fn threads_have_clients_of_their_own() {
    prints(&["threads"], "32 threads\n");
}

#[test]
fn threads_share_a_client() {
    prints(&["shared-client"], "8 threads\n");
}

#[test]
fn hundreds_of_processes_work_at_once() {
    prints(&["processes"], "300 processes\n");
}

#[test]
fn a_request_that_takes_long_delays_no_other() {
    prints(&["blocking"], "others went on\n");
}

#[test]
fn more_long_requests_than_there_are_workers_are_answered() {
    prints(&["crowd"], "100 registered\n");
}

#[test]
fn signals_are_handled_and_no_request_notices() {
    prints(&["interrupted"], "500 signals\n");
}

#[test]
fn a_client_lives_through_duplicates_and_ends_with_the_last() {
    prints(
        &["duplicates"],
        "through fcntl's 100\nfreed with the last\n",
    );
}

#[test]
fn a_child_uses_what_it_inherited() {
    prints(&["fork"], "free after the child: 78 GiB\n");
}

#[test]
fn programs_are_started_in_the_manner_of_vfork() {
    prints(&["spawn"], &"(Some(0), \"8 threads\\n\")\n".repeat(4));
}

#[test]
fn exec_closes_and_so_frees() {
    prints(
        &["exec"],
        "free before: 79 GiB\nthe descriptor: Err(EBADF)\nfree after: 80 GiB\n",
    );
}

#[test]
fn exec_leaves_open_what_is_to_stay_open() {
    prints(&["exec-inherited"], "used after exec\n");
}

#[test]
fn a_descriptor_is_passed_on_by_a_task_that_has_ended() {
    prints(
        &["pass"],
        "used: 79 GiB free\nfreed: 80 GiB free\nclosed: 80 GiB free\n",
    );
}

#[test]
fn closing_frees() {
    prints(&["close"], "freed 50 times\n");
}

#[test]
fn closing_an_event_descriptor_frees() {
    prints(&["close-events"], "kept 1 GiB\nkept 1 GiB\nfreed\n");
}

#[test]
fn ending_frees_generation_after_generation() {
    prints(&["generations"], "freed 20 times\n");
}

#[test]
fn being_killed_in_the_middle_of_requests_frees() {
    prints(&["killed"], "freed after 100 were killed\n");
}

/// What `greedy` prints where a sandbox may have 640 nodes open and the sentry obeys this rule besides.
fn nodes_that_are_had(rule: &str) -> Ended {
    let rules = format!("server.nodes=value:640 {rule}");
    finish(&mut guest_under(&rules, &["greedy"]))
}

#[test]
fn a_process_that_opens_all_nodes_it_can_leaves_others_theirs() {
    // Ten are nobody's. Of the others one has half, another half of what is left.
    let expected = "\
one has 325, then EMFILE: Too many open files
another has 158, then EMFILE: Too many open files
";
    let had = nodes_that_are_had("sentry.nodes=value:640");
    assert_eq!(had, Ended::printing(expected));
}

/// That the test above can fail.
#[test]
fn a_process_opens_all_nodes_if_they_are_not_divided() {
    let expected = "\
one has 640, then EMFILE: Too many open files
another has 0, then EMFILE: Too many open files
";
    let had = nodes_that_are_had("sentry.nodes=drop");
    assert_eq!(had, Ended::printing(expected));
}

/// The same where the caller's limit allows fewer: each node takes two descriptors of the server.
#[test]
fn nodes_are_divided_by_the_callers_limit_of_descriptors() {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 1024; exec \"$@\"", "sh"])
        .arg(ringfence_program())
        .args(["run", "--driver", "sim"])
        .args(showing_the_guest())
        .arg("--")
        .arg(guest_program())
        .arg("greedy");
    let expected = "\
one has 260, then EMFILE: Too many open files
another has 126, then EMFILE: Too many open files
";
    assert_eq!(finish(&mut command), Ended::printing(expected));
}

/// What is kept of a process that has ended takes no descriptor that others need.
#[test]
fn short_processes_leave_room_below_a_low_limit_of_descriptors() {
    let guest = guest_program();
    let guest = guest.display();
    let script =
        format!("for each in $(seq 60); do {guest} block-size >/dev/null || exit; done; echo all");
    assert_eq!(below_a_low_limit(&script), Ended::printing("all\n"));
}

/// Nor does memory that it has mapped, of which nothing is left. What a process leaves behind is given back a moment later.
#[test]
fn memory_that_ended_processes_had_mapped_leaves_room_below_a_low_limit_of_descriptors() {
    let guest = guest_program();
    let guest = guest.display();
    let script = format!(
        "for each in $(seq 60); do tries=0; until {guest} map-host-memory >/dev/null 2>&1; do \
         tries=$((tries + 1)); [ $tries -lt 300 ] || exit; sleep 0.1; done; done; echo all"
    );
    assert_eq!(below_a_low_limit(&script), Ended::printing("all\n"));
}

/// What comes of a script of few descriptors.
fn below_a_low_limit(script: &str) -> Ended {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 64; exec \"$@\"", "sh"])
        .arg(ringfence_program())
        .args(["run", "--driver", "sim"])
        .args(showing_the_guest())
        .args(["--", "sh", "-c", script]);
    finish(&mut command)
}
