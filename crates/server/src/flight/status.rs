//! Errors as gRPC statuses.

use axum::http::StatusCode;
use tonic::{Code, Status};

use crate::error::ApiError;

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let code = match error.status {
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::UNPROCESSABLE_ENTITY if error.code == "too_slow" => Code::DeadlineExceeded,
            StatusCode::UNPROCESSABLE_ENTITY => Code::ResourceExhausted,
            status if status.is_client_error() => Code::InvalidArgument,
            _ => Code::Unavailable,
        };
        Self::new(code, error.hint.map_or_else(|| error.message.clone(), |hint| format!("{}: {hint}", error.message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_errors_and_a_busy_server_have_different_codes() {
        for (error, code) in [
            (ApiError::bad("invalid_sql", "no"), Code::InvalidArgument),
            (ApiError::unauthorized(), Code::Unauthenticated),
            (ApiError::foreign_host(), Code::PermissionDenied),
            (ApiError::too_much("too_slow", "no"), Code::DeadlineExceeded),
            (ApiError::too_much("too_long", "no"), Code::ResourceExhausted),
            (ApiError::busy(), Code::Unavailable),
        ] {
            let status = Status::from(error.clone());
            assert_eq!(status.code(), code);
            assert!(status.message().starts_with(&error.message), "{status}");
        }
    }
}
