//! What cannot be read off the driver's source: `nvproxy-server/abi/rules.toml`, a list that people keep and review.
//!
//! A rule is about one request, by name, and holds for every release that has it. Fields are named by their paths in
//! the request's structure, never by offset. Where a release's structure lacks a field, what the rule says of it says
//! nothing about that release. But what a request does, which bits are set in it and of which variants it is has to be known
//! of every release that has it: the fields of `effect`, `set_bits`, `cleared_bits`, `memory_list` and `variants` have to be there.

use std::convert::Infallible;

use nvproxy_abi_effects::{Effect, Form, Number, Rewrite};
use serde::Deserialize;

use crate::rows::{Role, Whose};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    pub frontend: Vec<Rule>,
    pub control: Vec<Rule>,
    pub class: Vec<Rule>,
    pub uvm: Vec<Rule>,
    /// Which ioctls on `/dev/nvidiactl` and the GPUs the driver reads, beside those of `frontend`.
    #[serde(default)]
    pub intercepted: Vec<Intercepted>,
    /// Requests that can take 200 µs or more.
    pub blocking: Blocking,
}

/// By what words of an ioctl the driver of any release reads anything. Exactly one of the three is said.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Intercepted {
    pub name: String,
    /// Why, and the place in the driver's source that shows it.
    pub why: String,
    /// It is read if its size is that of one of these.
    pub structures: Vec<String>,
    /// Some release reads or writes it whatever its size.
    pub any_size: bool,
    /// It is a name of the headers and nothing else.
    pub unread: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Blocking {
    pub frontend: Vec<String>,
    pub control: Vec<String>,
    pub class: Vec<String>,
    pub uvm: Vec<String>,
}

/// What has to be known of one request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    pub name: String,
    /// Why the rule is as it is, and the place in the driver's source that shows it.
    pub why: String,
    /// The structures that it takes, one row each: of a frontend ioctl, which no table of the driver's relates to one,
    /// and of a control command that has no entry in the driver's tables.
    pub structures: Vec<String>,
    /// The number of a control command that has no entry in the driver's tables.
    pub command: Option<u32>,
    /// The driver takes its parameters in several sizes.
    pub any_size: bool,
    /// Buffers that the driver reads or writes. A pointer named here is not looked for in the driver's own list.
    pub pointers: Vec<PointerRule>,
    /// Descriptor numbers.
    pub descriptors: Vec<DescriptorRule>,
    /// Fields that look like pointers or descriptors and that the driver does not follow.
    pub inert: Vec<String>,
    /// What its structure calls a status is none of the request's.
    pub without_status: bool,
    pub pins: bool,
    pub makes_event: bool,
    /// Bits that are set on the way in, or cleared; a rule has one of these.
    pub set_bits: Option<BitsRule>,
    pub cleared_bits: Option<BitsRule>,
    pub refused_flags: Option<RefusedFlagsRule>,
    pub variants: Option<VariantsRule>,
    /// Handles of clients. An ioctl's first is the client that makes the request.
    pub clients: Vec<ClientRule>,
    /// What becomes of objects once it has succeeded.
    pub effect: Option<Effect<Names>>,
    /// It tells how much memory a GPU has.
    pub memory_list: Option<MemoryListRule>,
    /// Names of GPUs, which have to be those that the sandbox was given.
    pub gpus: Vec<GpuRule>,
    /// Fields that are only passed with certain values.
    pub passed: Vec<PassedRule>,
    /// Lists of GPUs in the answer.
    pub gpu_lists: Vec<GpuListRule>,
    /// What the answer is not to tell.
    pub cleared: Vec<ClearedRule>,
    /// It is answered with success and not issued.
    pub answered: bool,
}

impl Rule {
    /// The fields that the rule and its variants are about, each with the name of its rule.
    pub(crate) fn fields(&self) -> Vec<(&str, &str)> {
        let inert = self.inert.iter();
        let pointers = self.pointers.iter().map(|pointer| &pointer.field);
        let descriptors = self.descriptors.iter().map(|descriptor| &descriptor.field);
        let bits = self.set_bits.iter().chain(&self.cleared_bits);
        let bits = bits.map(|bits| &bits.field);
        let flags = self.refused_flags.iter().map(|flags| &flags.field);
        let variants = self.variants.iter().map(|variants| &variants.field);
        let own = inert.chain(pointers).chain(descriptors);
        let clients = self.clients.iter().map(|client| &client.field);
        let counts = self
            .clients
            .iter()
            .filter_map(|client| client.count.as_ref());
        let effect = self.effect.iter().flat_map(fields);
        let lists = self.memory_list.iter();
        let lists = lists.flat_map(|list| [&list.field, &list.count]);
        let own = own.chain(bits).chain(flags).chain(variants);
        let own = own.chain(clients).chain(counts).chain(effect).chain(lists);
        let gpus = self.gpus.iter();
        let gpus = gpus.flat_map(|gpu| gpu.field.iter().chain(&gpu.count));
        let passed = self.passed.iter().map(|passed| &passed.field);
        let lists = self.gpu_lists.iter();
        let lists = lists.flat_map(|list| list.field.iter().chain(&list.count));
        let cleared = self.cleared.iter().map(|cleared| &cleared.field);
        let own = own.chain(gpus).chain(passed).chain(lists).chain(cleared);
        let own = own.map(|field| (self.name.as_str(), field.as_str()));
        let classes = self.variants.iter().flat_map(|variants| &variants.classes);
        own.chain(classes.flat_map(Rule::fields)).collect()
    }
}

/// How long a buffer is: exactly one of `bytes`, `count` and `side`, except that the parameters of a class are as long
/// as the class says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PointerRule {
    pub field: String,
    /// That many bytes.
    pub bytes: Option<u32>,
    /// As many elements as this 4-byte field says.
    pub count: Option<String>,
    /// A square matrix of as many rows and columns as this 4-byte field says.
    pub side: Option<String>,
    /// Bytes of an element; one, if nothing is said.
    pub element: Option<u32>,
    /// It points to parameters of the control command that this field names.
    pub control: Option<String>,
    /// It points to parameters of the class that this field names.
    pub class: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescriptorRule {
    pub field: String,
    pub role: Role,
}

/// Bits that are set on the way in and cleared on the way out.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitsRule {
    pub field: String,
    pub bits: u64,
}

/// Flags with which a request is refused, and the NV_STATUS that it is answered with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedFlagsRule {
    pub field: String,
    pub bits: u32,
    pub status: String,
}

/// The request is one of several, by the class that a field of it names. Others are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantsRule {
    pub field: String,
    pub classes: Vec<Rule>,
}

/// The handle of a client, or several: an array, where `count` names the 4-byte field that says how many; a buffer,
/// where the field is a pointer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientRule {
    pub field: String,
    pub count: Option<String>,
    /// The NV_STATUS with which the driver answers a handle that no client has.
    pub absent: String,
    #[serde(default)]
    pub whose: Whose,
    /// Whether the driver is told the client that makes the request where a program names none.
    #[serde(default)]
    pub is_filled_in: bool,
}

/// A name of a GPU, or several: an id of 4 bytes, a UUID of 16, or an array of ids.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuRule {
    /// Without it the whole argument is a list of ids.
    pub field: Option<String>,
    /// The 4-byte field that says how many ids there are.
    pub count: Option<String>,
    /// The id behind the last.
    pub end: Option<u32>,
    /// An id that names none.
    pub unused: Option<u32>,
    /// The NV_STATUS with which the driver answers a name that no GPU has; it has an errno for it otherwise.
    pub absent: Option<String>,
}

/// A field of at most 8 bytes that is only passed with these values, from a value on or up to one. With others the request is answered
/// with `status`, or the driver is told `instead`; it has one of these.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassedRule {
    pub field: String,
    /// Only of requests that make a client.
    #[serde(default)]
    pub of_clients: bool,
    pub values: Option<Vec<u64>>,
    pub least: Option<u64>,
    pub most: Option<u64>,
    pub status: Option<String>,
    pub instead: Option<u64>,
}

/// A list of GPUs in an answer: of ids, or of structures.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuListRule {
    /// Without it the whole argument is the list, and `element` is needed.
    pub field: Option<String>,
    /// The structure of an element.
    pub element: Option<String>,
    /// Which field of the structure is the id.
    pub id: Option<String>,
    /// The 4-byte field that says how many elements there are.
    pub count: Option<String>,
    /// What fills the elements behind the last.
    #[serde(default)]
    pub fill: u8,
}

/// What an answer is not to tell: a field, or a field of every element of an array (`samples[].procId`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearedRule {
    pub field: String,
    /// What is told in the place of each byte.
    #[serde(default)]
    pub fill: u8,
}

/// The form of the rules: a field, or an array, is its path in the request's structure.
#[derive(Clone, Debug)]
pub struct Names;

impl Form for Names {
    type Field<T: Number> = String;
    type Array<T: Number> = String;
}

/// The fields that an effect names.
pub(crate) fn fields(rule: &Effect<Names>) -> Vec<&String> {
    let mut named = Named(Vec::new());
    let Ok(_) = rule.rewrite(&mut named);
    named.0
}

/// Collects names.
struct Named<'a>(Vec<&'a String>);

impl<'a> Rewrite<'a, Names, ()> for Named<'a> {
    type Error = Infallible;

    fn field<T: Number>(&mut self, path: &'a String) -> Result<(), Infallible> {
        self.0.push(path);
        Ok(())
    }

    fn array<T: Number>(&mut self, path: &'a String) -> Result<(), Infallible> {
        self.0.push(path);
        Ok(())
    }
}

/// A list of pairs of 4 bytes, or a pointer to one, and the 4-byte field that says how many there are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryListRule {
    pub field: String,
    pub count: String,
}

/// Reads the file.
pub fn parse(text: &str) -> Result<Rules, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}
