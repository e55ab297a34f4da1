//! HTTP mechanism and the two proxies.
