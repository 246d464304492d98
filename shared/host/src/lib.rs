//! Hosts: stream consumer and AWS Lambda.
