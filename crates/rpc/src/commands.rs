//! Commands that arrive together, so many at most.
//!
//! A command may be two bytes on the wire and hundreds in memory: a message of the largest size, full of them, would be
//! gigabytes before anybody could count them. So they are counted while they are decoded.

use prost::DecodeError;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, message, skip_field};

use crate::pb::v1::Command;

/// Commands of one frame or batch.
pub const COMMANDS_MAX: usize = 1024;

const TAG: u32 = 1;

/// The messages `CommandFrame` and `BatchRequest`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Commands {
    /// Of more than [`COMMANDS_MAX`] that arrive the first ones and one more: whoever takes them in refuses all of them.
    pub commands: Vec<Command>,
}

impl prost::Message for Commands {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        message::encode_repeated(TAG, &self.commands, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag == TAG && self.commands.len() <= COMMANDS_MAX {
            message::merge_repeated(wire_type, &mut self.commands, buf, ctx)
        } else {
            skip_field(wire_type, tag, buf, ctx)
        }
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len_repeated(TAG, &self.commands)
    }

    fn clear(&mut self) {
        self.commands.clear();
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// What the derived code would make of the same bytes.
    #[derive(Clone, PartialEq, Message)]
    struct Derived {
        #[prost(message, repeated, tag = "1")]
        commands: Vec<Command>,
    }

    #[test]
    fn it_is_the_message_of_the_proto() {
        let command = |tag| Command { tag, keyspace: "k".into(), ..Command::default() };
        let commands: Vec<_> = (0..COMMANDS_MAX as u64).map(command).collect();
        let derived = Derived { commands: commands.clone() }.encode_to_vec();
        let ours = Commands { commands };
        assert_eq!(ours.encode_to_vec(), derived);
        assert_eq!(ours.encoded_len(), derived.len());
        assert_eq!(Commands::decode(&derived[..]), Ok(ours));
    }

    #[test]
    fn of_too_many_commands_one_too_many_is_kept() {
        let mut bytes = [0x0a, 0x00].repeat(1 << 20);
        // And a field that this version does not know.
        bytes.extend([0x10, 0x01]);
        let decoded = Commands::decode(&bytes[..]).expect("it is such a message");
        assert_eq!(decoded.commands.len(), COMMANDS_MAX + 1);
        assert!(Commands::decode(&bytes[..3]).is_err(), "it ends within a command");
    }
}
