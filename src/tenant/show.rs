//! How what holds a payload shows itself to logs and in assertions: with its length in the place of its bytes.

use std::fmt;

use cutover_formats::Hidden;

use super::types::{Completion, Definition, Instance, Launch, NewStep, Task};

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("definition", &self.definition)
            .field("version", &self.version)
            .field("key", &self.key)
            .field("request_id", &self.request_id)
            .field("input", &Hidden(&self.input))
            .field("start_in", &self.start_in)
            .field("steps", &self.steps)
            .field("conflict", &self.conflict)
            .field("reuse", &self.reuse)
            .field("abort_on_change", &self.abort_on_change)
            .finish()
    }
}

impl fmt::Debug for NewStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewStep")
            .field("name", &self.name)
            .field("queue", &self.queue)
            .field("input", &Hidden(&self.input))
            .field("parents", &self.parents)
            .field("retry", &self.retry)
            .finish()
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("content_type", &self.content_type)
            .field("body", &Hidden(&self.body))
            .field("digest", &self.digest)
            .field("created_ms", &self.created_ms)
            .finish()
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("id", &self.id)
            .field("definition", &self.definition)
            .field("version", &self.version)
            .field("key", &self.key)
            .field("state", &self.state)
            .field("cancel_requested", &self.cancel_requested)
            .field("open_steps", &self.open_steps)
            .field("launched_ms", &self.launched_ms)
            .field("ended_ms", &self.ended_ms)
            .field("reason", &self.reason)
            .field("output", &Hidden(&self.output))
            .finish()
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("instance", &self.instance)
            .field("step", &self.step)
            .field("queue", &self.queue)
            .field("input", &Hidden(&self.input))
            .field("saved", &Hidden(&self.saved))
            .field("token", &self.token)
            .field("attempt", &self.attempt)
            .field("definition", &self.definition)
            .field("version", &self.version)
            .field("key", &self.key)
            .finish()
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("result", &Hidden(&self.result))
            .field("next", &self.next)
            .field("output", &Hidden(&self.output))
            .finish()
    }
}
