//! A control command while it is answered: what an answer works with.

use crate::structs::control::NVXXXX_CTRL_XXX_INFO;
use nvproxy_abi::status::*;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::buffers::{Buffers, Part};
use super::gpu::Gpu;
use super::names::{FileNumber, Handle, Outcome};
use super::state::State;

/// One command. Client and object exist.
pub(super) struct Command<'a, 'b> {
    pub state: &'a mut State,
    pub buffers: &'a mut Buffers<'b>,
    pub caller: FileNumber,
    pub client: Handle,
    pub object: Handle,
    pub parameters: Part,
}

impl Command<'_, '_> {
    /// Reads the parameters, lets `answer` work on them, and writes them back if it succeeds.
    pub fn with<T: FromBytes + IntoBytes + Immutable>(
        &mut self,
        answer: impl FnOnce(&mut T, &mut Self) -> Outcome,
    ) -> Outcome {
        let mut parameters: T = self
            .buffers
            .get(self.parameters)
            .ok_or(NV_ERR_INVALID_ARGUMENT)?;
        answer(&mut parameters, self)?;
        self.buffers.put(self.parameters, &parameters);
        Ok(())
    }

    /// The GPU that the object belongs to.
    pub fn gpu(&self) -> Outcome<(usize, &Gpu)> {
        let client = self.state.clients.existing(self.client)?;
        let instance = client
            .object(self.object)?
            .gpu
            .ok_or(NV_ERR_INVALID_STATE)?;
        let gpu = self.state.gpus.get(instance).ok_or(NV_ERR_INVALID_STATE)?;
        Ok((instance, gpu))
    }

    /// Answers every element of the list behind the pointer at byte `field` of the parameters.
    pub fn answer_list(&mut self, field: usize, answer: impl Fn(u32) -> u32) {
        const EACH: usize = size_of::<NVXXXX_CTRL_XXX_INFO>();
        let Some(list) = self.buffers.pointed_to(self.parameters, field) else {
            return;
        };
        for index in 0..list.length() / EACH {
            let element = list.field(index * EACH, EACH);
            let asked = element.and_then(|part| self.buffers.get::<NVXXXX_CTRL_XXX_INFO>(part));
            if let (Some(part), Some(NVXXXX_CTRL_XXX_INFO { index, .. })) = (element, asked) {
                self.buffers.put(
                    part,
                    &NVXXXX_CTRL_XXX_INFO {
                        index,
                        data: answer(index),
                    },
                );
            }
        }
    }
}
