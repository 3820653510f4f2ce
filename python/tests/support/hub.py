"""A client in place of huggingface_hub."""

import pathlib
import shutil
import types


class Hub(types.ModuleType):
    """What is used of huggingface_hub: repositories are folders of a folder."""

    def __init__(self, root):
        super().__init__("huggingface_hub")
        self.root, self.calls = pathlib.Path(root), []

    def HfApi(self, token=None):
        self.calls.append(("HfApi", token))
        return self

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        assert exist_ok
        self.calls.append(("create_repo", repo_id, private))
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, commit_message=None):
        self.calls.append(("upload_folder", repo_id, commit_message))
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def snapshot_download(self, repo_id, *, revision=None, allow_patterns=None):
        self.calls.append(("snapshot_download", repo_id, revision, allow_patterns))
        if not (self.root / repo_id).is_dir():
            raise ConnectionError(f"no repository {repo_id}\nand a second line")
        return str(self.root / repo_id)
