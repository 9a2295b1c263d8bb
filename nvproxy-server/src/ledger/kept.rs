//! What the driver keeps with a description itself, which counts until that is closed: the table of what was exported to it
//! (`_initializeExportObjectFd`, src/nvidia/arch/nvalloc/unix/src/os.c, 580.142), and the list of GPUs that it is attached to
//! (NV_ESC_ATTACH_GPUS_TO_FD, kernel-open/nvidia/nv.c). Of each there is one at most.

use super::accounts::Ledger;
use super::content::Content;

impl Ledger {
    /// Whether a description has a table of what was exported to it.
    pub fn has_places(&self, description: u64) -> bool {
        let description = self.descriptions.get(&description);
        description.is_some_and(|description| description.has_places)
    }

    /// A description has a table from now on, for which `content` was taken.
    pub fn add_places(&mut self, description: u64, content: Content) {
        let holder = self.descriptions.entry(description).or_default();
        holder.has_places = true;
        holder.kept.memory.extend(content.memory);
    }

    /// The driver keeps `content` with a description from now on.
    pub fn keep_with(&mut self, description: u64, content: Content) {
        let holder = self.descriptions.entry(description).or_default();
        holder.kept.memory.extend(content.memory);
    }
}
