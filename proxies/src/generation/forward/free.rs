//! Calls that cost nothing: lists of models, counts of tokens.

use bytes::Bytes;
use http::StatusCode;
use hyper::body::Incoming;

use super::super::body::{self, Arrived, ReadError, RequestBody};
use super::super::count;
use super::super::metered::AnswerBody;
use super::super::provider::Provider;
use super::super::refuse::Refusal;
use super::head::answered;
use super::{Answered, Forward, own, unreachable};
use crate::http::pool::CallError;

impl Forward {
    /// Forwards what costs nothing: lists of models.
    pub(super) async fn pass(self, incoming: Incoming) -> Answered {
        let arrived = match self.read(incoming).await {
            Ok(Arrived {
                rest: None, frames, ..
            }) => frames,
            Ok(_) => return self.too_large(),
            Err(refused) => return refused,
        };
        self.pass_whole(&arrived).await
    }

    pub(super) async fn pass_whole(&self, frames: &[Bytes]) -> Answered {
        let Some(upstream) = self.upstream(0) else {
            return own(Refusal::unavailable("no provider".to_owned()).response(self.format));
        };
        let mut fresh = false;
        loop {
            let request = match self.head(upstream, RequestBody::whole(frames), false) {
                Ok(request) => request,
                Err(refusal) => return own(refusal.response(self.format)),
            };
            let refusal = match self.send(upstream, request, fresh).await {
                Ok(Some(answer)) => {
                    let (head, body) = answer.into_parts();
                    return answered(head, AnswerBody::Passed(body));
                }
                Err(CallError::Ended { reused: true, .. }) if !fresh => {
                    fresh = true;
                    continue;
                }
                Err(error) => unreachable(upstream, &error),
                Ok(None) => {
                    let message = format!("{} did not answer in time", upstream.target);
                    Refusal::upstream(StatusCode::GATEWAY_TIMEOUT, message)
                }
            };
            return own(refusal.response(self.format));
        }
    }

    /// Asks the provider, or answers with an estimate where it has no such call.
    pub(super) async fn count_tokens(self, incoming: Incoming) -> Answered {
        let mut arrived = match self.read(incoming).await {
            Ok(arrived) => arrived,
            Err(refused) => return refused,
        };
        if let Some(rest) = arrived.rest.take() {
            match body::drain(&mut arrived, rest).await {
                Ok(()) => {}
                Err(ReadError::TooLarge(_)) => return self.too_large(),
                Err(ReadError::Cut(_)) => {
                    return own(count::response(arrived.decoder.feed_ref().request()));
                }
            }
            return own(count::response(arrived.decoder.feed_ref().request()));
        }
        if self.provider.counts_tokens() && self.proxy.credentials.has(self.provider) {
            let answer = self.pass_whole(&arrived.frames).await;
            let absent = matches!(answer.status().as_u16(), 404 | 405 | 501);
            if self.provider == Provider::Anthropic || !absent {
                return answer;
            }
        }
        own(count::response(arrived.decoder.feed_ref().request()))
    }
}
