//! What hostile programs try, and do not get.

use userland_tests::prints;

#[test]
fn a_process_with_many_threads_gets_no_more_than_its_part() {
    prints(&["greed", "1", "200"], "had its part\n");
}

#[test]
fn many_processes_with_many_threads_get_no_more_than_their_part() {
    prints(&["greed", "8", "60"], "had its part\n");
}
