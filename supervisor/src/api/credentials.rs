//! `PUT /v1/spec` and `PUT /v1/credentials`: what a platform gives a warm or running container.
