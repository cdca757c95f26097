"""accelerate's files: its own loader and launcher read each, no key is passed over, each is what its name says."""

import os
from unittest import mock

import pytest
import torch
import yaml
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands import launch as accelerate_launch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils.launch import prepare_multi_gpu_env

from helpers.parallel import CONFIGS

FILES = sorted(CONFIGS.glob("*.yaml"))
FSDP = [path for path in FILES if path.stem.startswith("fsdp")]
CARDS = {"two_cpus": 2, "2x24": 2, "8x80": 8}


def parsed(path):
    """The arguments that `accelerate launch --config_file path x.py` ends up with."""
    parser = accelerate_launch.launch_command_parser()
    args, _, _ = accelerate_launch._validate_launch_command(parser.parse_args(["--config_file", str(path), "x.py"]))
    return args


def test_there_is_a_file_for_each_machine():
    assert [path.stem for path in FILES] == [
        "fsdp1_2x24", "fsdp1_8x80", "fsdp2_2x24", "fsdp2_8x80", "two_cpus", "zero3_2x24", "zero3_8x80"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_reads_it(path):
    config, args = load_config_from_file(str(path)), parsed(path)
    machine = path.stem.partition("_")[2] if path.stem != "two_cpus" else path.stem
    assert config.num_processes == args.num_processes == CARDS[machine]
    assert args.main_process_port == 0, "a free port"
    assert args.use_fsdp == path.stem.startswith("fsdp") and args.use_deepspeed == path.stem.startswith("zero3")
    assert args.multi_gpu == (path.stem == "two_cpus")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_key_is_an_option(path):
    """accelerate passes over a key in fsdp_config or deepspeed_config that it does not know."""
    options = {action.dest for action in accelerate_launch.launch_command_parser()._actions}
    config = yaml.safe_load(path.read_text())
    keys = [key for part in ("fsdp_config", "deepspeed_config") for key in config.get(part, {})]
    assert set(keys) <= options and bool(keys) == (path.stem != "two_cpus")


@pytest.mark.parametrize("path", FSDP, ids=lambda path: path.stem)
def test_fsdp_becomes_what_the_file_says(path):
    found = prepare_multi_gpu_env(parsed(path))
    with mock.patch.dict(os.environ, found, clear=True):  # reading on one process alone asks for a GPU at once
        plugin = FullyShardedDataParallelPlugin(cpu_ram_efficient_loading=False, sync_module_states=False)
    assert found["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "true" and found["FSDP_SYNC_MODULE_STATES"] == "true"
    assert plugin.fsdp_version == int(path.stem[4])
    offloaded = path.stem.endswith("2x24")
    if plugin.fsdp_version == 1:
        assert plugin.cpu_offload.offload_params == offloaded and not plugin.use_orig_params
        assert plugin.sharding_strategy is torch.distributed.fsdp.ShardingStrategy.FULL_SHARD
    else:
        assert isinstance(plugin.cpu_offload, torch.distributed.fsdp.CPUOffloadPolicy) == offloaded
        assert plugin.reshard_after_forward is True
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT"


@pytest.mark.parametrize("path", [p for p in FILES if p.stem.startswith("zero3")], ids=lambda path: path.stem)
def test_deepspeed_is_zero_3(path):
    args = parsed(path)
    where = "cpu" if path.stem.endswith("2x24") else "none"
    assert args.zero_stage == 3 and args.offload_param_device == args.offload_optimizer_device == where


def test_a_key_that_is_misspelt_would_be_noticed(tmp_path):
    path = tmp_path / "fsdp1_2x24.yaml"
    path.write_text((CONFIGS / "fsdp1_2x24.yaml").read_text().replace("fsdp_backward_prefetch", "fsdp_prefetch"))
    parsed(path)  # accelerate itself says nothing
    with pytest.raises(AssertionError):
        test_every_key_is_an_option(path)
