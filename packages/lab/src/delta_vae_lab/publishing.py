"""Publish a run on the Hugging Face Hub in one commit: all of it can be seen there, or nothing."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError

from delta_vae_lab.export import CARD, Upload, is_published_by_us, repository_files
from delta_vae_lab.run_folder import RunFolder

# The error of the HTTP library under `huggingface_hub`, of which all of its others are: a connection refused or broken,
# a time-out.
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__mro__[1]

# USER/NAME as the Hub takes it.
_NAME = re.compile(r"(?=.{3,96}$)(?!.*(--|\.\.|\.git$))[A-Za-z0-9_]([\w.-]*\w)?/[A-Za-z0-9_]([\w.-]*\w)?", re.ASCII)


def check_publishable(repo: str) -> None:
    """Raise `ValueError` where `publish` would fail without any word with the Hub: to be asked before a training."""
    _check_name(repo)
    if is_offline_mode():
        raise ValueError("HF_HUB_OFFLINE=1: nothing can be published; unset it, or later: delta-vae push RUN USER/NAME")
    if get_token() is None:
        raise ValueError(
            "no token for the Hugging Face Hub: run `hf auth login`, or set HF_TOKEN, to one that may write"
        )


def publish(
    run: Path,
    repo: str,
    *,
    part: str | None = None,
    private: bool = False,
    revision: str | None = None,
    dry_run: bool = False,
) -> str:
    """Publish the folder of a finished run in the repository USER/NAME, which is made if need be.

    part: of the model this alone, a name of `PARTS`. private: a new repository is only for its owner; one that is
    public already is refused. revision: a branch, made if need be. Gives the URL of the commit; with `dry_run` a list
    of the files with their sizes, and nothing is sent. What was published there before and is not now is taken away.
    """
    _check_name(repo)
    uploads = repository_files(RunFolder(run), repo, revision, part)
    if dry_run:
        return _listing(uploads, repo, revision)
    check_publishable(repo)
    api = HfApi()
    options = ["--part", part] if part is not None else []
    options += [*(["--private"] if private else []), *(["--revision", revision] if revision is not None else [])]
    with _told_in_one_line(repo, shlex.join(["delta-vae", "push", str(run), repo, *options])):
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise ValueError(f"{repo}: is public; make it private in its settings first, or leave --private out")
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        there = api.model_info(repo, revision=revision)
        names = {upload.name for upload in uploads}
        left = [file.rfilename for file in there.siblings or [] if is_published_by_us(file.rfilename)]
        commit = api.create_commit(
            repo,
            [
                *(CommitOperationAdd(upload.name, upload.content) for upload in uploads),
                *(CommitOperationDelete(name) for name in left if name not in names),
            ],
            commit_message=f"Publish the {'run' if part is None else f'{part} of the run'} {run.resolve().name}",
            revision=revision,
        )
    return str(commit.commit_url)


def _check_name(repo: str) -> None:
    """Raise `ValueError` unless it is USER/NAME as the Hub takes it."""
    if not _NAME.fullmatch(repo):
        raise ValueError(
            f"repository {repo!r}: give USER/NAME, as in user/delta-vae-lm1b, of letters, digits, '_' and, between "
            "them, single '-' or '.'"
        )


def _listing(uploads: Sequence[Upload], repo: str, revision: str | None) -> str:
    """The files with their sizes, and where the card can be read beforehand."""
    width = max(len(upload.name) for upload in uploads)
    lines = [f"{upload.name:<{width}}  {upload.size:>13,} bytes" for upload in uploads]
    card = Path(tempfile.mkdtemp(prefix="delta-vae-card-"), CARD)
    card.write_bytes(next(bytes(upload.content) for upload in uploads if upload.name == CARD))
    total = f"{len(uploads)} files, {sum(upload.size for upload in uploads):,} bytes"
    place = repo if revision is None else f"{repo}, branch {revision}"
    return "\n".join([*lines, "", f"{total}, for {place}. Nothing was sent. The card: {card}"])


@contextmanager
def _told_in_one_line(repo: str, again: str) -> Iterator[None]:
    """Within, what goes wrong between here and the Hub becomes a `ValueError` that says what to do.

    again: the command that publishes the run once more; a run is not trained anew for it.
    """
    try:
        yield
    except HfHubHTTPError as error:
        raise ValueError(_refusal(repo, again, error)) from error
    except (_HTTP_ERROR, ConnectionError, TimeoutError, RuntimeError) as error:
        cause = error.__cause__ or error  # an upload of large files wraps what happened
        broken = (
            f"{repo}: the connection to the Hub broke ({type(cause).__name__}: {cause}): nothing was published, unless "
            f"only the Hub's last answer was lost; run it again: {again}"
        )
        raise ValueError(_refusal(repo, again, cause) if isinstance(cause, HfHubHTTPError) else broken) from error


def _refusal(repo: str, again: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 401:
        reason, remedy = "the Hub does not know this token", "run `hf auth login`, or set HF_TOKEN, to a valid one"
    elif status in (403, 404):
        reason, remedy = "this token may not write there", "take one that may, or a repository of yours"
    else:
        reason = " ".join((error.server_message or str(error)).split())
        remedy = "try later"
    return f"{repo}: {reason} ({status}), nothing was published; {remedy}, and then: {again}"
