//! The library's HTTP calls to object stores, made by our own client: our resolver, our outbound proxies, our
//! certificate authorities.
//!
//! Bounds: [`DEADLINE`] for a call from its connection to the last byte of its answer; [`ANSWER`] bytes of an answer.
//! Answers are read whole, so that a store that stalls in the middle is a failure and not a hang.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use whim_proxies::http::dial::{Dialer, Target};
use whim_proxies::http::pool::{BodyError, CallError, Pool};

/// For one call. A full segment passes in that time over 2 Mbit/s.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
/// Largest answer: a segment and what is around it, or a page of a listing.
const ANSWER: usize = 64 * 1024 * 1024;

/// Gives the library our client.
#[derive(Clone, Debug)]
pub struct Connector(Arc<Pool<Outgoing>>);

impl Connector {
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self(Pool::new(dialer))
    }

    /// Makes one call.
    pub(super) async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        match tokio::time::timeout(DEADLINE, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(late) => Err(HttpError::new(HttpErrorKind::Timeout, late)),
        }
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (mut head, body) = request.into_parts();
        let target = Target::try_from(&head.uri)
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let unusable = |error| HttpError::new(HttpErrorKind::Unknown, error);
        if !head.headers.contains_key(header::HOST)
            && let Some(authority) = head.uri.authority()
        {
            let host = HeaderValue::from_str(authority.as_str())
                .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
            head.headers.insert(header::HOST, host);
        }
        let path = head
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        head.uri = path
            .parse()
            .map_err(|error: http::uri::InvalidUri| unusable(Box::new(error)))?;
        let again = Request::from_parts(head.clone(), Outgoing(body.clone()));
        let first = Request::from_parts(head, Outgoing(body));
        let answer = match self.0.call(&target, first, false).await {
            // The connection's end was on its way already. Every call of ours may be repeated: puts are of new objects.
            Err(CallError::Ended { reused: true, .. }) => self.0.call(&target, again, true).await,
            answer => answer,
        };
        let answer = answer.map_err(|error| {
            let kind = match &error {
                CallError::Dial(_) => HttpErrorKind::Connect,
                CallError::Ended { .. } => HttpErrorKind::Request,
            };
            HttpError::new(kind, error)
        })?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER).collect().await;
        let body = body
            .map_err(|error| HttpError::new_boxed(HttpErrorKind::Interrupted, error))?
            .to_bytes();
        Ok(HttpResponse::from_parts(head, HttpResponseBody::from(body)))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Connector {
    fn call<'service, 'call>(
        &'service self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'call>>
    where
        'service: 'call,
        Self: 'call,
    {
        Box::pin(Self::call(self, request))
    }
}

/// The library's body, with the error that the pool wants.
#[derive(Debug)]
struct Outgoing(HttpRequestBody);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.0)
            .poll_frame(context)
            .map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
