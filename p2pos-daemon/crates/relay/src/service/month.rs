//! The owner's monthly limit: counted, warned of, never passed.
//!
//! Which month it is is wall-clock knowledge: the caller says when one begins, and keeps the count over restarts.

use std::collections::VecDeque;

use super::{
    answer::ServiceEvent,
    settings::{MONTH_PAYLOAD_PERCENT, MONTH_WARNING_PERCENT},
};
use crate::bucket::WHOLE_PERCENT;

/// This month's bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Month {
    pub(super) used: u64,
    pub(super) max: Option<u64>,
    is_warned: bool,
    is_used_up: bool,
}

impl Month {
    pub(super) fn new(used: u64, max: Option<u64>) -> Self {
        Self { used, max, is_warned: false, is_used_up: false }
    }

    /// Tells whether so many bytes more stay within so much of the limit.
    pub(super) fn has_room(&self, bytes: u64, percent: u64) -> bool {
        self.max.is_none_or(|max| self.used.saturating_add(bytes) <= part(max, percent))
    }

    pub(super) fn count(&mut self, bytes: u64, events: &mut VecDeque<ServiceEvent>) {
        self.used = self.used.saturating_add(bytes);
        let Some(max) = self.max else { return };
        if !self.is_warned && self.used >= part(max, MONTH_WARNING_PERCENT) {
            self.is_warned = true;
            events.push_back(ServiceEvent::MonthWarning { used: self.used, max });
        }
        // A full packet more than is left: nothing but signalling fits any longer.
        let is_used_up =
            self.used.saturating_add(crate::FRAME_BYTES_MAX as u64) > part(max, MONTH_PAYLOAD_PERCENT);
        if !self.is_used_up && is_used_up {
            self.is_used_up = true;
            events.push_back(ServiceEvent::MonthUsedUp { max });
        }
    }
}

fn part(max: u64, percent: u64) -> u64 {
    let part = u128::from(max) * u128::from(percent) / u128::from(WHOLE_PERCENT);
    u64::try_from(part).expect("at most the whole")
}
