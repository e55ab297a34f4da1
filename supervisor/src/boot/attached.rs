//! The task's attachments at the boot, and how the agent hears of them.

use tokio_util::task::AbortOnDropHandle;
use whim_wire::attachment::Attachment;

use super::Grounds;
use crate::config::Settings;

/// What the spec names and is not there yet. A link that does not work is told, and stops nothing.
pub(super) fn fetch(grounds: &Grounds, settings: &Settings) -> AbortOnDropHandle<Vec<Attachment>> {
    let attachments = grounds.attachments.clone();
    let wanted = settings.attachments.clone();
    AbortOnDropHandle::new(tokio::spawn(
        async move { attachments.of_spec(&wanted).await },
    ))
}

/// The task's prompt and what goes with it. Without a prompt there is nothing to go with: the instructions name the place.
pub(super) fn first_prompt(settings: &Settings, attached: Option<String>) -> Option<String> {
    let prompt = settings.agent.prompt.clone()?;
    Some(match attached {
        Some(attached) => format!("{prompt}\n\n{attached}"),
        None => prompt,
    })
}
