"""Where backups are read from: the store, host and keys of a config, or of arguments alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tools import os_works
from tools.base import permissions, project
from tools.base.errors import BackupError, ConfigError, StoreError
from tools.catalog import catalog, identity, manifest, trust, writer_key
from tools.catalog.catalog import Catalog
from tools.catalog.selection import Preference
from tools.catalog.trust import Trust
from tools.config import loading, model
from tools.config.declarations import General
from tools.config.model import Config, Section
from tools.flow import stalls
from tools.flow.item import USER_STAGE
from tools.flow.item_record import StoredItem as Item
from tools.flow.store import Store, check_store, folder_of
from tools.flow.stream import Chunks
from tools.modules import loader, registry
from tools.modules.options import Size

_STORAGE = "storage/storage.py"
_ENCRYPTION = "encryption/encryption.py"


class UserModules(Protocol):
    """User-defined stores and filters (tools.engine.user_modules.ForRestore)."""

    def open_store(self, section: Section, config: Config, /) -> Store:
        """Return the store of a user-defined section."""

    def inverse_stage(
        self, section: Section, config: Config, /
    ) -> Callable[[Chunks], Iterator[bytes]]:
        """Return the inverse of the filter of a user-defined section."""


@dataclass(frozen=True)
class Source:
    """The arguments that say where backups are read from; "" and None: not given.

    config:     path of a conf.json
    store:      section of the store in it, or the URL of any store
    endpoint:   URL of the server of a store that is named by its URL
    local_backup: folder of a local store
    key_file, passphrase: instead of those of the config
    allow_unencrypted: restore items that are not encrypted, though the config encrypts or a key
                is given
    signer:     file of allowed_signers lines or key file with signers in comments, beside
                those of the config
    allow_unsigned: trust runs that were made before signing began
    existing:   the folder of a local store must be there: it is read, and nothing creates it
    own_run:    within a run of this config: a host that signs nothing trusts all of its runs
    insecure_permissions: skip the permission check of the config
    limits:     bytes a second by LIMIT_UPLOAD and LIMIT_DOWNLOAD, instead of those of the config
    """

    config: Path | None = None
    store: str = ""
    local_backup: Path | None = None
    hostname: str = ""
    key_file: Path | None = None
    passphrase: str = ""
    insecure_permissions: bool = False
    signer: Path | None = None
    allow_unsigned: bool = False
    existing: bool = False
    own_run: bool = False
    allow_unencrypted: bool = False
    endpoint: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def names_store(self) -> bool:
        """Return whether the arguments alone name the store."""
        return self.local_backup is not None or "://" in self.store


@dataclass(frozen=True)
class BackupLocation:
    """An open store, the host whose runs are meant, and the keys.

    trust:      whose manifests are trusted
    configured: by a config file, not by arguments alone
    encrypted_only: whether an item that is not encrypted must not be restored
    """

    store: Store
    config: Config
    hostname: str
    user_modules: UserModules
    trust: Trust
    configured: bool = False
    encrypted_only: bool = False

    def hosts(self) -> Sequence[str]:
        """Return the host that was named, else all hosts of the store."""
        if self.hostname:
            return [self.hostname]
        folders = list(self.store.folders())
        return (catalog.hosts(self.store) if len(folders) > 1 else ()) or folders

    def host(self) -> str:
        """Return the one host that is meant. Raises ConfigError where that is not clear."""
        hosts = self.hosts()
        if not hosts:
            raise ConfigError(f"{self.store}: no runs", self.hint())
        if len(hosts) > 1:
            raise ConfigError(
                f"{self.store} contains runs of {len(hosts)} hosts",
                f"Choose one with --hostname: {catalog.named(hosts)}.",
            )
        return hosts[0]

    def catalog(self) -> Catalog:
        """Return the catalog of the host. Raises ConfigError where it is not clear which."""
        return self.catalog_of(self.host())

    def catalog_of(self, host: str) -> Catalog:
        """Return the catalog of a host."""
        return Catalog(self.store, host, self.trust, encrypted_only=self.encrypted_only)

    def hint(self) -> str:
        """Return a hint where the store has no run of the host."""
        others = [host for host in catalog.hosts(self.store) if host != self.hostname]
        if others and self.hostname:
            return f"Choose a host of the store with --hostname: {catalog.named(others)}."
        folder = folder_of(self.store)
        if folder is not None and any(folder.glob(f"*{manifest.ENDING}")):
            return f"Use the folder of the store, {folder.parent}: {folder} is that of one host."
        return f"{check_store(self.store)} {self.others()}".strip()

    def others(self) -> str:
        """Return a hint that names the stores of the config; "" where there is only one."""
        names = [one.name for one in self.config.sections if one.kind == "store"]
        return f"The config has the stores {', '.join(names)} (--store)." if names[1:] else ""

    def preference(self, host: str) -> Preference:
        """Return which runs of a host are preferred: those of the config, on its own host."""
        if not self.configured or host != self.config.general.hostname:
            return Preference()
        names = tuple(entry.name for entry in self.config.sections)
        writer = identity.writer(self.config)
        return Preference(names, writer.config_id, writer.machine)

    def inverse_stage(self, stage: str) -> Callable[[Chunks], Iterator[bytes]]:
        """Return the inverse of a stage of a manifest. Raises ConfigError, StageError."""
        row = registry.row_of_stage(stage)
        if row is not None:
            section = _section_for(self.config, row.file) or _built_in(row.file)
            options = model.filled(section, self.config)
            return loader.stage(row.file).backward(stage, options)
        name = stage.removeprefix(USER_STAGE)
        filters = [one for one in self.config.sections if one.name == name and _is_filter(one)]
        if not stage.startswith(USER_STAGE) or not filters:
            raise ConfigError(
                f"unknown stage {stage!r}",
                f"Use -c with the config that defines the filter section {name}.",
            )
        return self.user_modules.inverse_stage(filters[0], self.config)

    def options(self, item: Item) -> object:
        """Return the Options of the section that made an item; None where the config has none."""
        module = registry.file_of_kind(item.kind)
        for entry in self.config.sections:
            if entry.name == item.section and registry.name_of(entry.file) == module:
                return model.filled(entry, self.config)
        return None


def load_config(source: Source) -> Config:
    """Return the config of the arguments, with the key that they name. Raises ConfigError."""
    if source.config is None and not source.names_store:
        raise ConfigError(
            "no config and no store given",
            "Use -c CONFIG, --local-backup FOLDER, or --store with the URL of a store.",
        )
    if source.insecure_permissions:
        permissions.accept()
    config = (
        loading.load(source.config, insecure=source.insecure_permissions)
        if source.config
        else Config(Path.cwd() / "arguments", General(source.hostname or "unknown"), {}, ())
    )
    if source.limits:
        config = _with_limits(config, source.limits)
    return _with_key(config, source) if source.key_file or source.passphrase else config


def open_location(config: Config, source: Source, user_modules: UserModules) -> BackupLocation:
    """Open the store. Raises ConfigError, or what the store raises."""
    host = source.hostname or (config.general.hostname if source.config else "")
    store = stalls.watched(
        config.general.stall_timeout, lambda: _open_store(config, source, user_modules)
    )
    whom = trust_of(config, source)
    encrypted = _encrypted_only(config, source)
    return BackupLocation(store, config, host, user_modules, whom, bool(source.config), encrypted)


def _encrypted_only(config: Config, source: Source) -> bool:
    """Return whether items that are not encrypted must not be restored.

    Where a key was named, or every item that the config stores is encrypted. A drill restores
    what its own run trusts, also the last run before encryption was turned on.
    """
    if source.allow_unencrypted or source.own_run:
        return False
    return bool(source.key_file or source.passphrase or _encrypts_all(config))


def _encrypts_all(config: Config) -> bool:
    """Return whether a config encrypts all that it stores.

    In a streamed run every item passes every stage. In a staged one a store may also take files
    from other folders than those of the encryption.
    """
    encrypting = [one for one in config.sections if registry.encrypts([one.file])]
    if not encrypting or config.mode.streamed:
        return bool(encrypting)
    encrypted = {_folder_of(one, config) for one in encrypting}
    stores = [one for one in config.sections if one.kind == "store"]
    return all(
        one.declaration is not None and encrypted.issuperset(_folders_of(one, config))
        for one in stores
    )


def _folder_of(encryption: Section, config: Config) -> Path:
    """Return the folder that an encryption section of a staged run writes to."""
    destination = getattr(model.filled(encryption, config), "destination", None)
    return Path(destination or config.general.work_folder / "encrypted").absolute()


def _folders_of(store: Section, config: Config) -> list[Path]:
    """Return the folders that a store of a staged run takes."""
    targets = getattr(model.filled(store, config), "targets", ())
    return [
        Path(folder).absolute() for folder in targets or (config.general.work_folder / "encrypted",)
    ]


def _is_filter(section: Section) -> bool:
    """Return whether a section is a user-defined filter."""
    return section.kind == "stage" and section.declaration is None


def trust_of(config: Config, source: Source) -> Trust:
    """Return whose manifests are trusted. Raises ConfigError for an unusable file of signers."""
    key_file = None  # a run knows its own signer, and the key may be on a mount that hangs
    if not source.own_run:
        key_file = key_file_of(config)
    signers = trust.known_signers(_host_of_key(config, source), key_file, source.signer)
    return Trust(signers, source.allow_unsigned, everybody=source.own_run and not signers)


def _host_of_key(config: Config, source: Source) -> General:
    """Return GENERAL; without a config its HOSTNAME is the host that WRITER_KEY names.

    On the server itself that is the key which has signed: it must not be known for another name.
    """
    general = config.general
    has_config = source.config or not source.names_store
    host = "" if has_config else writer_key.host_of(general.writer_key)
    return dataclasses.replace(general, hostname=host) if host else general


def key_file_of(config: Config) -> Path | None:
    """Return the KEY_FILE of the encryption, or its default; it may hold the signers."""
    section = _section_for(config, _ENCRYPTION) or _built_in(_ENCRYPTION)
    key_file: Path | None = getattr(model.filled(section, config), "key_file", None)
    return key_file


def _section_for(config: Config, module: str) -> Section | None:
    """Return the section of a config that runs a built-in module."""
    return next((one for one in config.sections if registry.name_of(one.file) == module), None)


def _built_in(module: str, **parameters: Any) -> Section:  # noqa: ANN401  (values of options)
    """Return a section for a built-in module that the config does not have."""
    file = project.ROOT / module
    kind = registry.MODULES[module].role
    return Section(
        Path(module).stem.upper(), "arguments", "execute", file, "python",
        parameters=parameters, kind=kind, declaration=registry.declaration(file),
    )  # fmt: skip


def _with_key(config: Config, source: Source) -> Config:
    """Return the config, its encryption with the key of the arguments."""
    old = _section_for(config, _ENCRYPTION)
    section = old or _built_in(_ENCRYPTION)
    own_keys = ("PASSPHRASE", "RECIPIENTS")
    parameters = {key: one for key, one in section.parameters.items() if key not in own_keys}
    if source.key_file:
        parameters["KEY_FILE"] = str(source.key_file.absolute())
    if source.passphrase:
        parameters["PASSPHRASE"] = source.passphrase
    section = dataclasses.replace(section, parameters=parameters)
    others = [entry for entry in config.sections if entry is not old]
    return dataclasses.replace(config, sections=(section, *others))


def _with_limits(config: Config, limits: Mapping[str, int]) -> Config:
    """Return the config with limits of rates that all its stores share. limits: by their keys"""
    fields = {key.lower(): Size(value) for key, value in limits.items()}
    return dataclasses.replace(
        config,
        general=dataclasses.replace(config.general, **fields),  # type: ignore[arg-type]
        handed={**config.handed, **limits},
        sections=tuple(
            dataclasses.replace(
                one, parameters={k: v for k, v in one.parameters.items() if k not in limits}
            )
            for one in config.sections
        ),
    )


def _open_store(config: Config, source: Source, user_modules: UserModules) -> Store:
    """Return the store of the arguments, else the first of the config that can be opened."""
    if source.local_backup is not None:
        folder = source.local_backup.absolute()
        if not folder.is_dir():
            raise ConfigError(
                f"--local-backup: {folder}: not a directory", "Mount the disk, or correct the path."
            )
        keys = {"HOSTNAME": "any", "DESTINATION": "local", "LOCAL_BACKUP": str(folder)}
        return store_of(_built_in(_STORAGE, **keys), config, user_modules)
    if source.names_store:
        store_keys = loader.store(_built_in(_STORAGE).file).keys_of(source.store, source.endpoint)
        return store_of(_built_in(_STORAGE, **store_keys), config, user_modules)
    if source.endpoint:
        raise ConfigError(
            "--endpoint requires --store with the URL of a store",
            "Add --store, for example --store s3://BUCKET/PREFIX.",
        )
    stores = [entry for entry in config.sections if entry.kind == "store"]
    chosen = [entry for entry in stores if source.store in ("", entry.name)]
    if not chosen:
        names = ", ".join(entry.name for entry in stores) or "none"
        raise ConfigError(f"--store: no store section {source.store}", f"Choose from: {names}.")
    first: BackupError | OSError | None = None
    for entry in chosen:
        try:
            store = store_of(entry, config, user_modules)
            if source.existing:
                _require_folder(store)
            return store
        except (BackupError, OSError) as error:
            first = first or error
    assert first is not None  # noqa: S101
    raise first


def _require_folder(store: Store) -> None:
    """Raise StoreError where the folder of a local store is missing: a disk is not mounted."""
    folder = folder_of(store)
    try:
        if folder is not None:
            folder.stat()
    except FileNotFoundError:
        raise StoreError(
            f"{folder}: no such file or directory",
            "Mount the disk of the backups, or correct LOCAL_BACKUP.",
        ) from None
    except OSError:
        return  # the store reports it when it is read


def store_of(section: Section, config: Config, user_modules: UserModules) -> Store:
    """Return the store of a section, built in or not. Raises BackupError, OSError."""
    if section.declaration is None:
        return user_modules.open_store(section, config)
    return opened(section, config)


def opened(section: Section, config: Config) -> Store:
    """Return a built-in store. Its programs get the variables that ENVIRONMENT names."""
    with os_works.passing(section.environment):
        return loader.store(section.file).open_store(model.filled(section, config))
