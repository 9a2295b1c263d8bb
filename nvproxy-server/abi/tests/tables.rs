//! The tables as a whole: every row can be reached, means one thing, and stays within its parameters, whatever these hold.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::LazyLock;

use nvproxy_abi::node::Node;
use nvproxy_abi::number::{NV_ESC_RM_ALLOC, NV_ESC_RM_CONTROL, ioctl_word};
use nvproxy_abi::plan::{MAXIMUM_FIELDS, MAXIMUM_PAYLOAD, MAXIMUM_SEGMENTS, Plan, Planner, Step};
use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::refusal::What;
use nvproxy_abi::table::effects::{Number, Rewrite};
use nvproxy_abi::table::{
    Array, Contents, Extent, Family, GpuList, Length, Naming, Offsets, Request, Whose,
};
use nvproxy_abi::{Abi, NoTables};
use nvproxy_abi_derivation::rules::{self, Rule, Rules};

const FAMILIES: [Family; 4] = [
    Family::Frontend,
    Family::Control,
    Family::Alloc,
    Family::Uvm,
];

/// The tables of every release, with every capability.
static RELEASES: LazyLock<Vec<&'static Abi>> = LazyLock::new(|| {
    let releases = nvproxy_abi::releases();
    let tables = releases.map(|version| Abi::of_release(&version, Capabilities::ALL));
    tables.collect::<Result<_, _>>().expect("tables")
});

/// Those of one release.
fn abi() -> &'static Abi {
    let version = "580.142".parse().expect("a version");
    let found = RELEASES.iter().find(|abi| abi.version() == version);
    found.expect("tables of 580.142")
}

/// The rows of a family that every program may use.
fn usable(abi: &Abi, family: Family) -> Vec<&'static Request> {
    let rows = abi.rows(family);
    rows.filter(|row| row.reserved.is_none()).collect()
}

/// A size of parameters that the row accepts.
fn some_size(row: &Request) -> u32 {
    row.only_size().unwrap_or(72)
}

/// Every row of every table of every release, with those for values of a field.
fn all_rows() -> impl Iterator<Item = &'static Request> {
    RELEASES
        .iter()
        .flat_map(|abi| FAMILIES.into_iter().flat_map(|family| abi.rows(family)))
        .flat_map(|row| {
            std::iter::once(row).chain(row.variants.iter().flat_map(|variants| variants.rows))
        })
}

#[test]
fn only_known_releases_have_tables() {
    assert_eq!(abi().version().to_string(), "580.142");
    for text in ["580.130", "999.10"] {
        let version = text.parse().expect("a version");
        let error = Abi::of_release(&version, Capabilities::ALL).expect_err("no tables");
        assert_eq!(error, NoTables(version));
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn every_row_is_found_by_its_id() {
    for abi in RELEASES.iter() {
        for row in usable(abi, Family::Frontend) {
            let found = abi.frontend(row.id, some_size(row)).expect("a row");
            assert!(std::ptr::eq(found, row), "{}", row.name);
        }
        for (family, find) in [
            (
                Family::Control,
                Abi::control as fn(&Abi, u32) -> Result<&'static Request, What>,
            ),
            (Family::Alloc, Abi::class),
            (Family::Uvm, Abi::uvm),
        ] {
            let rows: Vec<_> = abi.rows(family).collect();
            assert!(
                rows.is_sorted_by(|before, after| before.id < after.id),
                "{family}"
            );
            for row in usable(abi, family) {
                let found = find(abi, row.id).expect("a row");
                assert!(std::ptr::eq(found, row), "{}", row.name);
            }
        }
    }
}

#[test]
fn what_is_not_granted_is_not_there() {
    let version = abi().version();
    let none = Abi::of_release(&version, Capabilities::NONE).expect("tables");
    for family in FAMILIES {
        for row in usable(none, family) {
            let refused = match family {
                Family::Frontend => none.frontend(row.id, some_size(row)),
                Family::Control => none.control(row.id),
                Family::Alloc => none.class(row.id),
                Family::Uvm => none.uvm(row.id),
            };
            let refused = refused.expect_err("no capability");
            assert!(matches!(refused, What::NotGranted { .. }), "{refused}");
        }
    }
}

#[test]
fn names_are_known_and_used_once() {
    for family in FAMILIES {
        let mut names = HashSet::new();
        for row in abi().rows(family) {
            assert_eq!(abi().name(family, row.id), Some(row.name));
            let unnamed = row.name.starts_with('(');
            let two_sizes = family == Family::Frontend && row.id == NV_ESC_RM_ALLOC;
            assert!(
                names.insert(row.name) || unnamed || two_sizes,
                "{}",
                row.name
            );
        }
    }
    // Names without rows, among them the first and the last of the list.
    assert_eq!(
        abi().name(Family::Control, 0x102),
        Some("NV0000_CTRL_CMD_SYSTEM_GET_CPU_INFO")
    );
    assert_eq!(
        abi().name(Family::Uvm, 62),
        Some("UVM_TOOLS_READ_PROCESS_MEMORY")
    );
    assert_eq!(
        abi().name(Family::Alloc, 0xb2cc),
        Some("MAXWELL_PROFILER_DEVICE")
    );
    assert_eq!(
        abi().name(Family::Frontend, 0x39),
        Some("NV_ESC_RM_I2C_ACCESS")
    );
    assert_eq!(abi().name(Family::Control, 0xffff_ffff), None);
}

#[test]
fn fields_lie_within_the_parameters() {
    for row in all_rows() {
        let fits = |at: u16, length: u32| u32::from(at) + length <= row.size;
        let name = row.name;
        if row.only_size().is_none() {
            assert!(
                row.pointers.is_empty() && row.descriptors.is_empty() && row.variants.is_none(),
                "{name}"
            );
            assert!(
                row.status_at.is_none() && row.traits.forced_bits.is_none(),
                "{name}"
            );
        }
        assert!(row.status_at.is_none_or(|at| fits(at, 4)), "{name}");
        assert!(
            row.descriptors
                .iter()
                .all(|descriptor| fits(descriptor.at, 4)),
            "{name}"
        );
        assert!(
            row.traits.forced_bits.is_none_or(|(at, _)| fits(at, 8)),
            "{name}"
        );
        assert!(
            row.variants.is_none_or(|variants| fits(variants.at, 4)),
            "{name}"
        );
        assert!(
            row.refused_flags.is_none_or(|flags| fits(flags.at, 4)),
            "{name}"
        );
        for pointer in row.pointers {
            assert!(fits(pointer.at, 8), "{name}");
            match pointer.length {
                Length::Field { at, scale } | Length::Square { at, scale } => {
                    assert!(fits(at, 4) && scale > 0, "{name}")
                }
                Length::Fixed(length) => assert!(length > 0, "{name}"),
                Length::OfContents => assert_ne!(pointer.contents, Contents::Bytes, "{name}"),
            }
            if let Contents::Control { command_at: at } | Contents::Class { class_at: at } =
                pointer.contents
            {
                assert!(fits(at, 4), "{name}");
            }
        }
        for (at, length) in owned_fields(row) {
            assert!(fits(at, length), "{name}: {at}");
        }
        for (at, length) in tenants_fields(row) {
            assert!(fits(at, length), "{name}: {at}");
        }
    }
}

/// Where a row's fields lie that concern other tenants, with their lengths in bytes.
fn tenants_fields(row: &Request) -> Vec<(u16, u32)> {
    let mut fields = Vec::new();
    for gpu in row.gpus {
        match gpu.naming {
            Naming::Id => fields.push((gpu.at, 4)),
            Naming::Uuid => fields.push((gpu.at, 16)),
            Naming::Until { most, .. } => fields.push((gpu.at, 4 * u32::from(most))),
            Naming::Counted { most, count_at } => {
                fields.extend([(gpu.at, 4 * u32::from(most)), (count_at, 4)]);
            }
            Naming::Rest { .. } => fields.push((gpu.at, 0)),
        }
    }
    for passed in row.passed {
        assert!(matches!(passed.width, 1 | 2 | 4 | 8), "{}", row.name);
        fields.push((passed.at, passed.width.into()));
    }
    for list in row.gpu_lists {
        assert!(list.id_at + 4 <= list.stride, "{}", row.name);
        let most = u32::from(list.most);
        let most = if list.most == GpuList::REST { 0 } else { most };
        fields.push((list.at, u32::from(list.stride) * most));
        fields.extend(list.count_at.map(|at| (at, 4)));
    }
    for cleared in row.cleared {
        assert!(cleared.count > 0 && cleared.length <= cleared.stride);
        let last = u32::from(cleared.stride) * u32::from(cleared.count - 1);
        fields.push((cleared.at, last + u32::from(cleared.length)));
    }
    fields
}

/// As for the ledger: what is not told, and which GPUs are named, is known of every release that has the request.
#[test]
fn what_keeps_tenants_apart_is_known_of_every_release() {
    let refuses = |row: &Request, bits: u32| {
        row.refused_flags
            .is_some_and(|refused| refused.bits == bits)
    };
    let clears = |row: &Request, bits: u64| {
        let forced = row.traits.forced_bits;
        forced.is_some_and(|(_, forced)| (forced.set, forced.cleared) == (0, bits))
    };
    for abi in RELEASES.iter() {
        let rows = FAMILIES.into_iter().flat_map(|family| abi.rows(family));
        for row in rows {
            let (gpus, lists) = (row.gpus.len(), row.gpu_lists.len());
            let is_known = match row.name {
                "NV_ESC_ATTACH_GPUS_TO_FD" | "UVM_REGISTER_GPU" => gpus == 1,
                "NV0000_CTRL_CMD_GPU_ATTACH_IDS"
                | "NV0000_CTRL_CMD_GPU_DETACH_IDS"
                | "NV0000_CTRL_CMD_GPU_ASYNC_ATTACH_ID"
                | "NV0000_CTRL_CMD_GPU_WAIT_ATTACH_ID"
                | "NV0000_CTRL_CMD_GPU_GET_ID_INFO"
                | "NV0000_CTRL_CMD_GPU_GET_ID_INFO_V2"
                | "NV0000_CTRL_CMD_GPU_GET_PCI_INFO"
                | "NV0000_CTRL_CMD_GPU_GET_UUID_FROM_GPU_ID"
                | "NV0000_CTRL_CMD_GPU_QUERY_DRAIN_STATE"
                | "NV0000_CTRL_CMD_GPUACCT_GET_ACCOUNTING_STATE"
                | "NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS"
                | "NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS_V2" => gpus == 1,
                "NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS_MATRIX" => gpus == 2,
                "NV_ESC_CARD_INFO"
                | "NV0000_CTRL_CMD_GPU_GET_ATTACHED_IDS"
                | "NV0000_CTRL_CMD_GPU_GET_ACTIVE_DEVICE_IDS" => lists == 1,
                "NV0000_CTRL_CMD_GPU_GET_PROBED_IDS" => lists == 2,
                "NV0000_CTRL_CMD_SYNC_GPU_BOOST_GROUP_INFO" => row.cleared.len() == 2,
                "NV_ESC_SYS_PARAMS" => row.traits.answered,
                "NV_ESC_RM_SHARE" | "NV0000_CTRL_CMD_CLIENT_SET_INHERITED_SHARE_POLICY" => {
                    row.passed.len() == 2
                }
                "NV2080_CTRL_CMD_PERF_BOOST"
                | "NV01_MEMORY_SYSTEM_OS_DESCRIPTOR"
                | "NVA06C_CTRL_CMD_SET_TIMESLICE" => row.passed.len() == 1,
                "FERMI_VASPACE_A" => {
                    row.passed.len() == 1 && refuses(row, 0x200) && clears(row, 0x2)
                }
                "NV50_MEMORY_VIRTUAL" => refuses(row, 0x2000_0000),
                // The clients that it keeps the numbers of are the one that makes it, or as good.
                "NV01_DEVICE_0" => {
                    let whose: Vec<_> = row.clients.iter().map(|client| client.whose).collect();
                    whose == [Whose::Description, Whose::Maker] && clears(row, 0x4)
                }
                "NV_ESC_RM_ALLOC" => row.passed.len() == 2,
                // At least the number of a process, that in a guest and its name, for four engines.
                "NV2080_CTRL_CMD_PERF_GET_GPUMON_PERFMON_UTIL_SAMPLES_V2" => {
                    row.cleared.len() >= 12
                }
                _ => true,
            };
            assert!(is_known, "{}: {}", abi.version(), row.name);
        }
    }
}

/// Where a row's handles lie, and what says how many there are, with their lengths in bytes.
fn owned_fields(row: &Request) -> Vec<(u16, u32)> {
    let mut fields = Vec::new();
    for client in row.clients {
        match client.extent {
            Extent::One => fields.push((client.at, 4)),
            Extent::Array { most, count_at } => {
                fields.extend([(client.at, 4 * u32::from(most)), (count_at, 4)]);
            }
            Extent::Behind => fields.push((client.at, 8)),
        }
    }
    let mut lengths = Lengths(fields);
    if let Some(effect) = &row.effect {
        let Ok(_) = effect.rewrite(&mut lengths);
    }
    lengths.0
}

/// Where the fields of an effect lie, with their lengths in bytes.
struct Lengths(Vec<(u16, u32)>);

impl Rewrite<'_, Offsets, ()> for Lengths {
    type Error = Infallible;

    fn field<T: Number>(&mut self, at: &u16) -> Result<(), Infallible> {
        self.0.push((*at, T::BYTES));
        Ok(())
    }

    fn array<T: Number>(&mut self, array: &Array) -> Result<(), Infallible> {
        assert!(u32::from(array.stride) >= T::BYTES);
        let bytes = u32::from(array.stride) * u32::from(array.most);
        self.0.push((array.at, bytes));
        Ok(())
    }
}

/// The rules, of which the derivation sees to it that none loses in some release what a request does.
fn rules() -> Rules {
    rules::parse(include_str!("../rules.toml")).expect("rules")
}

#[test]
fn what_the_ledger_rests_on_is_known_of_every_release() {
    let rules = rules();
    for abi in RELEASES.iter() {
        for (family, rules) in [
            (Family::Frontend, &rules.frontend),
            (Family::Control, &rules.control),
            (Family::Alloc, &rules.class),
            (Family::Uvm, &rules.uvm),
        ] {
            for row in abi.rows(family) {
                let rule = rules.iter().find(|rule| rule.name == row.name);
                rests_on(row, rule, &format!("{} in {}", row.name, abi.version()));
            }
        }
    }
}

/// That a row says as much as its rule.
fn rests_on(row: &Request, rule: Option<&Rule>, what: &str) {
    let has = |said: fn(&Rule) -> bool| rule.is_some_and(said);
    let of_the_row = [
        row.effect.is_some(),
        row.memory_list.is_some(),
        row.traits.forced_bits.is_some(),
        row.variants.is_some(),
    ];
    let of_the_rule = [
        has(|rule| rule.effect.is_some()),
        has(|rule| rule.memory_list.is_some()),
        has(|rule| rule.set_bits.is_some() != rule.cleared_bits.is_some()),
        has(|rule| rule.variants.is_some()),
    ];
    assert_eq!(of_the_row, of_the_rule, "{what}");
    if let Some(list) = row.memory_list {
        assert_eq!(
            list.behind,
            row.name == "NV2080_CTRL_CMD_FB_GET_INFO",
            "{what}"
        );
    }
    // The records of events are the description's.
    if row.name.starts_with("NV_ESC_RM_") && row.name != "NV_ESC_RM_GET_EVENT_DATA" {
        assert!(!row.clients.is_empty(), "{what}");
    }
    let classes = rule.and_then(|rule| rule.variants.as_ref());
    for variant in row.variants.iter().flat_map(|variants| variants.rows) {
        let mut rules = classes.iter().flat_map(|variants| &variants.classes);
        let rule = rules.find(|rule| rule.name == variant.name);
        rests_on(variant, rule, &format!("{what}: {}", variant.name));
    }
}

#[test]
fn variants_describe_the_parameters_of_their_row() {
    let mut seen = 0;
    for row in FAMILIES.into_iter().flat_map(|family| abi().rows(family)) {
        for variant in row.variants.iter().flat_map(|variants| variants.rows) {
            assert_eq!(variant.size, row.size, "{}", variant.name);
            assert_eq!(abi().name(Family::Alloc, variant.id), Some(variant.name));
            seen += 1;
        }
    }
    assert_eq!(seen, 5);
}

/// Numbers that look random and are the same in every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Bytes of which about half are zero, so that counts are often small and pointers often null.
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| {
                if self.next() & 1 == 0 {
                    0
                } else {
                    self.next() as u8
                }
            })
            .collect()
    }
}

/// Requests of one release that look like requests and are made of such numbers.
struct Requests {
    abi: &'static Abi,
    numbers: Numbers,
    frontend: Vec<&'static Request>,
    control: Vec<&'static Request>,
    class: Vec<&'static Request>,
    uvm: Vec<&'static Request>,
}

impl Requests {
    fn of(abi: &'static Abi) -> Requests {
        let [frontend, control, class, uvm] = FAMILIES.map(|family| usable(abi, family));
        Requests {
            abi,
            numbers: Numbers(1),
            frontend,
            control,
            class,
            uvm,
        }
    }

    fn rows(&self) -> usize {
        [&self.frontend, &self.control, &self.class, &self.uvm]
            .map(Vec::len)
            .iter()
            .sum()
    }

    fn any(&mut self, rows: fn(&Requests) -> &Vec<&'static Request>) -> &'static Request {
        let index = self.numbers.below(rows(self).len());
        rows(self)[index]
    }

    /// The command word of an ioctl that has the number of a frontend row.
    fn numbered(&self, number: u32) -> u32 {
        let row = self.frontend.iter().rfind(|row| row.id == number);
        ioctl_word(number, row.expect("a row").size as usize)
    }

    /// A node, and the command word of an ioctl on it: control commands and allocations as often as all others.
    fn ioctl(&mut self, round: usize) -> (Node, u32) {
        match round % 4 {
            0 => (Node::Control, self.numbered(NV_ESC_RM_CONTROL)),
            1 => (Node::Control, self.numbered(NV_ESC_RM_ALLOC)),
            2 => {
                let row = self.any(|requests| &requests.frontend);
                let size = if row.only_size().is_none() {
                    self.numbers.below(1 << 14)
                } else {
                    row.size as usize
                };
                (Node::Gpu(0), ioctl_word(row.id, size))
            }
            _ => (Node::Uvm, self.any(|requests| &requests.uvm).id),
        }
    }

    /// Feeds the planner bytes, made like a request for a row as often as not.
    fn feed(&mut self, node: Node, ioctl: u32) -> Option<(Plan, Vec<u8>)> {
        let mut planner = Planner::new(self.abi, node, ioctl, self.numbers.next()).ok()?;
        let mut payload: Vec<u8> = Vec::new();
        loop {
            match planner.step(&payload) {
                Ok(Step::Complete) => return Some((planner.finish(), payload)),
                Ok(Step::Fetch(fetch)) => {
                    assert_eq!(fetch.offset as usize, payload.len());
                    let mut part = self.numbers.bytes(fetch.length as usize);
                    if payload.is_empty() {
                        self.aim(ioctl, &mut part);
                    }
                    payload.extend(part);
                    payload.resize(payload.len().next_multiple_of(8), 0);
                    assert!(payload.len() <= MAXIMUM_PAYLOAD);
                }
                Err(refusal) => {
                    assert_ne!(refusal.what, What::Malformed);
                    return None;
                }
            }
        }
    }

    /// Makes an argument of NV_ESC_RM_CONTROL or NV_ESC_RM_ALLOC name a row that exists, and its size. These fields lie
    /// where they do in every release.
    fn aim(&mut self, ioctl: u32, argument: &mut [u8]) {
        if ioctl == self.numbered(NV_ESC_RM_CONTROL) {
            let row = self.any(|requests| &requests.control);
            argument[8..12].copy_from_slice(&row.id.to_le_bytes());
            argument[24..28].copy_from_slice(&some_size(row).to_le_bytes());
        } else if ioctl == self.numbered(NV_ESC_RM_ALLOC) {
            let row = self.any(|requests| &requests.class);
            argument[12..16].copy_from_slice(&row.id.to_le_bytes());
        }
    }
}

#[test]
fn whatever_the_bytes_segments_are_in_bounds_and_in_order() {
    let (Some(oldest), Some(newest)) = (RELEASES.first(), RELEASES.last()) else {
        panic!("no releases");
    };
    for abi in [oldest, abi(), newest] {
        let mut requests = Requests::of(abi);
        let mut planned = HashSet::new();
        for round in 0..100_000 {
            let (node, ioctl) = requests.ioctl(round);
            if let Some((plan, payload)) = requests.feed(node, ioctl) {
                planned.insert((plan.family, plan.request.id));
                check(&plan, &payload);
            }
        }
        // The loop reached nearly every row; serialized and oversized requests take their share.
        let rows = requests.rows();
        assert!(
            planned.len() + 10 > rows,
            "{} of {rows}, {}",
            planned.len(),
            abi.version()
        );
    }
}

fn check(plan: &Plan, payload: &[u8]) {
    let mut end = 0;
    for (index, segment) in plan.segments.iter().enumerate() {
        assert_eq!(segment.offset, end, "segments are consecutive");
        // The field that points to a segment lies in one before it, and is not null.
        assert_eq!(segment.pointer_at.is_none(), index == 0);
        if let Some(at) = segment.pointer_at {
            assert!(at + 8 <= segment.offset);
            let field = &payload[at as usize..][..8];
            assert_ne!(field, [0; 8]);
        }
        end = (end + segment.length).next_multiple_of(8);
    }
    assert_eq!(end as usize, payload.len());
    assert_eq!(plan.total_length(), payload.len());
    for field in &plan.descriptors {
        assert!(field.at as usize + 4 <= payload.len());
    }
    let argument = plan.segments[0].length;
    assert!(plan.status_at().is_none_or(|at| at + 4 <= argument));
    assert!(
        plan.forced_bits()
            .is_none_or(|(at, _)| at as usize + 8 <= payload.len())
    );
}

/// A planner keeps as many buffers and descriptor fields as a request can have without asking for memory: it also runs in
/// signal handlers.
#[test]
fn no_request_has_more_parts_than_a_planner_has_room_for() {
    // In an ioctl's own parameters, and in what is found in them.
    let most = |abi: &Abi, family, count: fn(&Request) -> usize| {
        let rows = abi.rows(family).map(|row| {
            let variants = row.variants.map_or(&[][..], |variants| variants.rows);
            count(row) + variants.iter().map(count).max().unwrap_or(0)
        });
        rows.max().unwrap_or(0)
    };
    let in_all = |abi: &Abi, count| {
        let [ioctl, control, class, _] = FAMILIES.map(|family| most(abi, family, count));
        ioctl + control.max(class)
    };
    for abi in RELEASES.iter() {
        let buffers = 1 + in_all(abi, |row| row.pointers.len());
        assert!(buffers <= MAXIMUM_SEGMENTS, "{}: {buffers}", abi.version());
        let fields = in_all(abi, |row| row.descriptors.len());
        assert!(fields <= MAXIMUM_FIELDS, "{}: {fields}", abi.version());
    }
}
