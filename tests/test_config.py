import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fer_jax.experiment import build
from ml_collections import ConfigDict

from fer_jax.core import config
from fer_jax.core.cli import UserError

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").glob("*.py"))


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", CONFIGS)
def test_every_config_builds_and_says_its_command_and_result(path: str) -> None:
    loaded = config.load(path, [])
    build(loaded)
    assert loaded.keys() == config.load("configs/base.py", []).keys()
    text = Path(path).read_text()
    assert f"--config {path}" in text
    assert re.search(r"\d+\.\d+ %|no accuracy", text)  # what it reaches, or why that is not known
    assert re.search(r"\d+ (minutes|hours|seconds)", text)


@pytest.mark.parametrize("name", ["base", "best"])
def test_a_shipped_network_is_of_the_config_of_its_name(name: str) -> None:
    loaded = config.load(f"configs/{name}.py", [])
    assert config.as_json(config.read(Path("pretrained", name))) == config.as_json(loaded)


def test_base_explains_every_field() -> None:
    lines = Path("configs/base.py").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.strip().startswith("config.") and "ConfigDict()" not in line:
            comment = next(above for above in reversed(lines[:number]) if "= ConfigDict()" not in above)
            # two that share the comment of the field before them
            shared = line.strip().startswith(("config.optim.b2", "config.optim.nesterov", "config.schedule.scales"))
            shared = shared or line.strip().startswith("config.train.eval_batch_size")
            assert comment.strip().startswith("#") or shared, line


def test_overrides_take_the_type_of_the_field() -> None:
    loaded = config.load(
        "configs/base.py",
        [
            "--config.seed=7",
            "--config.optim.learning_rate=1",
            "--config.optim.nesterov=false",
            "--config.model.name=vgg13",
            "--config.schedule.boundaries=(3, 4)",
        ],
    )
    assert loaded.seed == 7
    assert loaded.optim.learning_rate == 1.0
    assert isinstance(loaded.optim.learning_rate, float)
    assert loaded.optim.nesterov is False
    assert loaded.model.name == "vgg13"
    assert loaded.schedule.boundaries == (3, 4)


@pytest.mark.parametrize(
    ("path", "overrides", "message"),
    [
        ("configs/none.py", [], r"no config file configs/none\.py"),
        ("configs/base.py", ["--config.lr=1"], r"no such field: lr$"),
        ("configs/base.py", ["--config.optim.lr=1"], r"no such field: optim\.lr; optim has .*learning_rate"),
        (
            "configs/base.py",
            ["--config.seed=1", "--config.train.epoch=1"],
            r"train\.epoch; did you mean train\.epochs\?",
        ),
        ("configs/base.py", ["--config.trian.epochs=1"], r"did you mean train\.epochs\?"),
        ("configs/base.py", ["--config.seed=x"], r"configs/base\.py: .*seed"),
        ("configs/base.py", ["--config.optim.nesterov", "false"], r"--config\.field=value"),
        ("configs/base.py", ["--config.seed", "3"], r"--config\.field=value"),
        ("configs/base.py", ["--epochs=3"], r"unknown argument '--epochs=3'"),
        ("configs/base.py", ["train"], r"unknown argument 'train'"),
    ],
)
def test_mistakes_get_one_line(path: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        config.load(path, overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config():\n    return 3\n", "must return"),
        ("x = 1\n", "get_config"),
        ("def get_config():\n    return 1 / 0\n", "ZeroDivisionError"),
        ("def get_config(:\n", "SyntaxError"),
        ("import no_such_module\n", "no_such_module"),
    ],
)
def test_broken_config_files_get_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        config.load(str(path), [])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.label_mode", "median", "data.label_mode 'median': choose one of majority"),
        ("augment.recipe", "cutmix", "augment.recipe 'cutmix': choose one of none"),
        ("augment.renderer", "cloud", "augment.renderer 'cloud': choose one of host"),
        ("image.normalize", "zca", "image.normalize 'zca': choose one of scale"),
        ("model.name", "alexnet", "model.name 'alexnet': choose one of emotion_cnn"),
        ("model.dtype", "int8", "model.dtype 'int8': choose float32"),
        ("optim.name", "adagrad", "optim.name 'adagrad': choose one of adam"),
        ("schedule.name", "linear", "schedule.name 'linear': choose one of constant"),
        ("train.epochs", "0", "train.epochs=0 must be at least 1"),
        ("seed", "-1", "seed=-1 must be at least 0"),
        ("image.size", "45", "image.size=45 must be a multiple of 8"),
        ("model.dropout", "2", "model.dropout=2.0 must be"),
        ("data.temperature", "0", "data.temperature=0.0 must be at least 0.01"),
        ("data.smoothing", "1", "data.smoothing=1.0 must be"),
        ("data.balance", "2", "data.balance=2.0 must be at least 0 and at most 1"),
        ("data.logit_adjustment", "-1", "data.logit_adjustment=-1.0 must be"),
        ("augment.mixup", "-1", "augment.mixup=-1.0 must be"),
        ("augment.erase", "50", "augment.erase=50.0 must be"),
        ("model.depth", "-1", "model.depth=-1 must be at least 0"),
        ("model.width", "0", "model.width=0.0 must be at least 0.125"),
        ("model.stochastic_depth", "1", "model.stochastic_depth=1.0 must be"),
        ("optim.learning_rate", "inf", "optim.learning_rate=inf must be"),
        ("optim.clip_norm", "-1", "optim.clip_norm=-1.0 must be at least 0"),
        ("optim.b2", "1", "optim.b2=1.0 must be"),
        ("optim.momentum", "-0.1", "optim.momentum=-0.1 must be"),
        ("optim.weight_decay", "-0.1", "optim.weight_decay=-0.1 must be"),
        ("schedule.final_scale", "2", "schedule.final_scale=2.0 must be"),
    ],
)
def test_unknown_names_get_one_line_that_lists_the_known(field: str, value: str, message: str) -> None:
    loaded = config.load("configs/base.py", [f"--config.{field}={value}"])
    with pytest.raises(UserError) as error:
        build(loaded)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["data.temperature", "data.smoothing", "augment.mixup", "augment.cutmix"])
def test_what_is_for_distributions_does_not_go_with_marks(field: str) -> None:
    with pytest.raises(UserError) as error:
        build(config.load("configs/base.py", [f"--config.{field}=0.5", "--config.data.label_mode=multi_target"]))
    assert f"{field}=0.5 does not go with data.label_mode=multi_target" in str(error.value)
    assert "\n" not in str(error.value)
    build(config.load("configs/base.py", [f"--config.{field}=0.5", "--config.data.label_mode=probability"]))


EXCLUSIVE = [
    ({"augment.mixup": 0.2, "augment.cutmix": 0.5}, "augment.mixup=0.2 does not go with augment.cutmix=0.5: set one"),
    (
        {"optim.ema_decay": 0.9, "optim.swa_epochs": 2},
        "optim.ema_decay=0.9 does not go with optim.swa_epochs=2: set one",
    ),
    ({"optim.ema_decay": 0.0, "optim.swa_epochs": 21}, "optim.swa_epochs=21 must be at least 0 and at most 20"),
    (
        {"augment.cutmix": 0.5, "data.label_mode": "multi_target"},
        "augment.cutmix=0.5 does not go with data.label_mode=multi_target: set it to 0.0",
    ),
    ({"model.depth": 0, "model.squeeze_excite": True}, "model.depth=0 leaves no residual block"),
    ({"model.depth": 0, "model.stochastic_depth": 0.1}, "model.depth=0 leaves no residual block"),
    (
        {"data.teachers": ("a", "b"), "data.label_mode": "multi_target"},
        "'a', 'b'",
    ),
]


@pytest.mark.parametrize("from_folder", [False, True])
@pytest.mark.parametrize(("fields", "message"), EXCLUSIVE)
def test_what_does_not_go_together_gets_one_line(fields, message: str, from_folder: bool, tmp_path: Path) -> None:
    def refusal(fields) -> str:
        loaded = config.load("configs/base.py", [])
        with loaded.unlocked():
            loaded.update_from_flattened_dict(fields)
        if from_folder:  # where tuples have become lists
            with config.claim(tmp_path, loaded):
                loaded = config.read(tmp_path)
        try:
            build(loaded)
        except UserError as error:
            return str(error)
        return ""

    said = refusal(fields)
    assert message in said
    assert "\n" not in said
    for field in fields:  # it is the two together: with either back at base's there is nothing to say
        alone = {name: value for name, value in fields.items() if name != field}
        if alone.keys() != {"optim.swa_epochs"}:  # base.py has a moving average
            assert refusal(alone) == ""


HOLDER = """
import sys, time
from pathlib import Path
from fer_jax import config
lock = config.hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_run_folder_is_one_processs_until_it_ends_in_whatever_way(tmp_path: Path) -> None:
    run, fields = tmp_path / "run", ConfigDict({"seed": 0})
    command = [sys.executable, "-c", HOLDER, str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            for refused in (lambda: config.claim(run, fields), lambda: config.hold(run)):
                with pytest.raises(config.BusyError, match=r"another process trains in .*run; wait for it") as error:
                    refused()
                assert "\n" not in str(error.value)
            assert not (run / "config.json").exists()  # nor has it lost its config
            with config.claim(run, fields, lock=False):  # one of several processes of a run holds it for all
                pass
        finally:
            other.kill()
    with config.hold(run), config.claim(run, fields):  # free again, and twice in one process
        pass


def test_a_refused_claim_leaves_the_folder_free_and_the_inner_claim_leaves_it_held(tmp_path: Path) -> None:
    def others_get() -> str:
        code = "import sys; from pathlib import Path; from fer_jax import config; config.hold(Path(sys.argv[1]))"
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
        return done.stderr

    with config.hold(tmp_path):
        with config.claim(tmp_path, ConfigDict({"seed": 0})):
            pass
        assert "BusyError" in others_get()
    (tmp_path / "checkpoints" / "step_3").mkdir(parents=True)
    with pytest.raises(UserError, match="another config"):
        config.claim(tmp_path, ConfigDict({"seed": 1}))
    assert others_get() == ""


def test_a_run_folder_belongs_to_its_config(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "run"
    first = ConfigDict({"seed": 0, "solver": {"rate": 0.1, "name": "adam"}, "steps": (1, 2)})
    config.claim(run, first)
    config.claim(run, first)  # the same again is fine
    (run / "checkpoints" / "step_3").mkdir(parents=True)
    assert config.as_json(config.read(run)) == {"seed": 0, "solver": {"rate": 0.1, "name": "adam"}, "steps": [1, 2]}
    other = ConfigDict({"seed": 0, "solver": {"rate": 0.2, "name": "adam"}, "steps": (1, 3)})
    with pytest.raises(UserError) as error:
        config.claim(run, other)
    assert "solver.rate: 0.1 there, 0.2 now" in str(error.value)
    assert "steps: [1, 2] there, [1, 3] now" in str(error.value)
    assert "seed" not in str(error.value)
    assert "name" not in str(error.value)
    assert config.read(run).solver.rate == 0.1


def test_a_run_that_is_older_than_some_fields_is_what_it_was(tmp_path: Path) -> None:
    now = config.load("configs/base.py", ["--config.model.antialias=False"])
    fields = config.as_json(now)
    later = {
        "augment": ["cutmix", "erase", "mixup"],
        "data": [
            *("balance", "drop_repeats", "logit_adjustment", "smoothing", "teacher_share", "teachers", "temperature"),
        ],
        "model": ["width", "depth", "squeeze_excite", "antialias", "stochastic_depth"],
        "optim": ["swa_epochs"],
        "train": ["init_from", "steps_per_call"],
    }
    for section, names in later.items():
        for name in names:
            del fields[section][name]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields))
    read = config.read(tmp_path)
    assert config.as_json(read) == config.as_json(now)  # all of them are off
    build(read)
    (tmp_path / "checkpoints" / "step_3").mkdir(parents=True)
    config.claim(tmp_path, now)  # and so it can go on
    now.model.antialias = True
    with pytest.raises(UserError, match=r"\(model\.antialias: False there, True now\)"):
        config.claim(tmp_path, now)
    assert json.loads(path.read_text()) == fields
    fields["model"] = {**fields["model"], "attention": True}
    path.write_text(json.dumps(fields))
    with pytest.raises(UserError, match=r"another version of fer_jax: .*attention"):
        build(config.read(tmp_path))


def test_folders_without_a_run_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run in"):
        config.read(tmp_path)
    for text in ("{", "[1]", "3"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match="cannot be read"):
            config.read(tmp_path)
    with pytest.raises(UserError, match="another version"):
        build(ConfigDict({"seed": 0}))
    with pytest.raises(UserError, match="cannot write"):
        config.claim(tmp_path / "config.json" / "run", ConfigDict())


def test_a_process_that_does_not_lock_makes_the_folder_and_writes_nothing(tmp_path: Path) -> None:
    run = tmp_path / "new" / "run"
    with config.claim(run, ConfigDict({"seed": 0}), lock=False):
        assert list(run.iterdir()) == []
    with config.claim(run, ConfigDict({"seed": 1})):
        (run / config.RESULT).write_text("{}")
        with config.claim(run, ConfigDict({"seed": 0}), lock=False):  # of a run that its own first process gives up
            assert config.read(run).seed == 1
            assert (run / config.RESULT).exists()
    (run / "checkpoints" / "step_3").mkdir(parents=True)
    with pytest.raises(UserError, match=r"another config \(seed: 1 there, 0 now\)"):
        config.claim(run, ConfigDict({"seed": 0}), lock=False)
