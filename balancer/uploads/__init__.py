"""Uploads: files of clients that the daemon cannot read itself, kept on disk until nobody needs them."""

from balancer.uploads.upload_store import StoredUpload, UploadStore

__all__ = ["StoredUpload", "UploadStore"]
