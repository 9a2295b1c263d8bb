//! Every program against a naive reading of its policy, and what the format can express.

use super::*;
use crate::interpreter::{Call, run};
use crate::policies;

/// The policy read statement by statement.
fn reading(policy: &Policy, tables: &[Table<'_>], call: &Call) -> Verdict {
    if call.machine != ARCHITECTURE || call.number >= FIRST_FOREIGN {
        return policy.foreign;
    }
    let cases = policy
        .rules
        .iter()
        .filter(|rule| rule.number == call.number)
        .flat_map(|rule| rule.cases);
    for case in cases {
        let holds = case.conditions.iter().all(|condition| {
            let argument = call.arguments[condition.argument as usize];
            let half = if condition.upper {
                argument >> 32
            } else {
                argument
            };
            let value = half as u32 & condition.mask;
            match condition.test {
                Test::Equal(other) => value == other,
                Test::Differs(other) => value != other,
                Test::Below(other) => value < other,
                Test::AtLeast(other) => value >= other,
                Test::OneOf(values) => values.contains(&value),
                Test::InTable(index) => tables
                    .iter()
                    .filter(|table| table.name == policy.tables[index])
                    .any(|table| table.numbers.contains(&value)),
            }
        });
        if holds {
            return case.verdict;
        }
    }
    policy.default
}

/// Values around every number that the policy compares an argument with.
fn values(policy: &Policy, tables: &[Table<'_>]) -> Vec<u64> {
    let mut compared: Vec<u32> = tables
        .iter()
        .flat_map(|table| table.numbers.iter().copied())
        .collect();
    let conditions = policy
        .rules
        .iter()
        .flat_map(|rule| rule.cases)
        .flat_map(|case| case.conditions);
    for condition in conditions {
        compared.push(condition.mask);
        match condition.test {
            Test::Equal(value)
            | Test::Differs(value)
            | Test::Below(value)
            | Test::AtLeast(value) => {
                compared.push(value);
            }
            Test::OneOf(values) => compared.extend(values),
            Test::InTable(_) => {}
        }
    }
    let mut values: Vec<u64> = [0, 1, u64::MAX, 1 << 32].to_vec();
    for value in in_order(&compared) {
        let around = [value.wrapping_sub(1), value, value.wrapping_add(1)];
        values.extend(around.map(u64::from));
        values.push(u64::from(value) | 0xffff_ffff << 32);
    }
    values
}

/// Compares a policy's program with its reading: for every number, with every interesting value in every argument.
fn check(policy: &Policy, tables: &[Table<'_>]) -> Vec<sock_filter> {
    let program = policy.compile(tables).expect("a program");
    let values = values(policy, tables);
    let check = |call: Call| {
        assert_eq!(
            run(&program, &call),
            Some(reading(policy, tables, &call)),
            "{call:?}"
        );
    };
    for number in (0..=500).chain([
        FIRST_FOREIGN - 1,
        FIRST_FOREIGN,
        FIRST_FOREIGN + 1,
        u32::MAX,
    ]) {
        for machine in [ARCHITECTURE, 0x4000_0003] {
            check(Call {
                machine,
                number,
                arguments: [0; 6],
            });
        }
        let depends = policy.rules.iter().any(|rule| {
            rule.number == number && !matches!(rule.cases, [case] if case.conditions.is_empty())
        });
        for value in values.iter().filter(|_| depends) {
            for place in 0..6 {
                let mut arguments = [0; 6];
                arguments[place] = *value;
                check(Call::native(number.into(), arguments));
            }
            check(Call::native(number.into(), [*value; 6]));
        }
    }
    program
}

#[test]
fn programs_say_what_their_policies_say() {
    let tables = [
        ("escapes", &[0x27, 0x29, 0x2a, 0x2b, 0xd6][..]),
        ("uvm_requests", &[0x17, 0x25, 0x3000_0001, 0x3000_0002]),
        ("self", &[4711]),
        (
            "driver_words",
            &[0x10_0029, 0x20_002a, 0x30_002b, 0xa30_00d9],
        ),
        ("driver_numbers", &[0x5f, 0xc8]),
        ("uvm_words", &[0x7ff, 0x3000_0001, 0x3000_0002]),
        ("words_let_run", &[0x40_002c]),
    ];
    let tables = tables.map(|(name, numbers)| Table { name, numbers });
    for policy in [
        &policies::TASK,
        &policies::SENTRY,
        &policies::SERVER,
        &policies::INIT,
    ] {
        check(policy, &tables);
    }
}

const fn always(number: u32, cases: &'static [Case<'static>; 1]) -> Rule<'static> {
    Rule { number, cases }
}

#[test]
fn the_bounds_of_a_search_are_exact() {
    const ALLOW: &[Case; 1] = &[Case {
        verdict: Verdict::Allow,
        conditions: &[],
    }];
    const NOTIFY: &[Case; 1] = &[Case {
        verdict: Verdict::Notify,
        conditions: &[],
    }];
    static POLICY: Policy = Policy {
        default: Verdict::Errno(1),
        foreign: Verdict::KillProcess,
        tables: &[],
        rules: &[
            always(500, ALLOW),
            always(0, ALLOW),
            always(2, NOTIFY),
            always(1, ALLOW),
            always(3, NOTIFY),
            always(7, ALLOW),
        ],
    };
    check(&POLICY, &[]);
    // 0 and 1, 2 and 3, 4 to 6, 7, 8 to 499, 500, and what is above.
    assert_eq!(POLICY.pieces().len(), 7);
}

/// A table as long as this makes jumps that no branch can reach by itself.
#[test]
fn long_jumps_lead_where_short_ones_do() {
    static POLICY: Policy = Policy {
        default: Verdict::Allow,
        foreign: Verdict::KillProcess,
        tables: &["first", "second"],
        rules: &[
            Rule {
                number: 16,
                cases: &[
                    Case {
                        verdict: Verdict::Notify,
                        conditions: &[Condition {
                            argument: 1,
                            upper: false,
                            mask: u32::MAX,
                            test: Test::InTable(0),
                        }],
                    },
                    Case {
                        verdict: Verdict::Errno(5),
                        conditions: &[
                            Condition {
                                argument: 1,
                                upper: false,
                                mask: 0xffff,
                                test: Test::InTable(1),
                            },
                            Condition {
                                argument: 2,
                                upper: true,
                                mask: u32::MAX,
                                test: Test::Differs(0),
                            },
                        ],
                    },
                ],
            },
            Rule {
                number: 200,
                cases: &[Case {
                    verdict: Verdict::KillProcess,
                    conditions: &[],
                }],
            },
        ],
    };
    let first: Vec<u32> = (0..700).map(|number| number * 3).collect();
    let second: Vec<u32> = (0..600).map(|number| number * 5 + 1).collect();
    let tables = |first, second| {
        [("first", first), ("second", second)].map(|(name, numbers)| Table { name, numbers })
    };
    let program = check(&POLICY, &tables(&first, &second));
    let jumps = program
        .iter()
        .filter(|instruction| u32::from(instruction.code) == BPF_JMP | BPF_JA);
    assert!(jumps.count() > 0);
    check(&POLICY, &tables(&[], &[]));

    let long: Vec<u32> = (0..4096).collect();
    assert!(matches!(
        POLICY.compile(&tables(&long, &[])),
        Err(Problem::TooLong(_))
    ));
    let only_first = Table {
        name: "first",
        numbers: &first,
    };
    assert_eq!(
        POLICY.compile(&[only_first]).map(|_| ()),
        Err(Problem::Missing("second"))
    );
}
