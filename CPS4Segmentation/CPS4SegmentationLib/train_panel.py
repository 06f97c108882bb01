"""The panel Train: a data set in, both stages in the background, a model out that Segment can use at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from CPS4Core.card import holds_model
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Artifact, Event, Failed, Finished, Metric, Progress, Started, Warned
from CPS4Core.systems import METHODS, OBJECTIVES
from CPS4SegmentationLib import exports
from CPS4SegmentationLib.curves import TrainingCurves
from CPS4SegmentationLib.job import Job, Outcome
from CPS4SegmentationLib.logic import CPS4SegmentationLogic, in_words, show_error
from CPS4SegmentationLib.panel import Panel, on_path
from CPS4SegmentationLib.progress import ProgressDisplay
from CPS4SegmentationLib.remembered import remember, setting
from CPS4SegmentationLib.segmentations import source_volume

PRESETS = ("small", "paper", "base")
SCHEMES = ("folder", "dicom", "mrspineseg", "spider", "totalspineseg", "spineps")
FIRST_METHODS, FIRST_OBJECTIVES = ("cps4", "mean_teacher", "supervised"), ("cps4",)
"""What is offered before the user asks for *More systems*."""
BOTH, STAGE_1, STAGE_2, GO_ON = range(4)
CHOSEN_ABOVE = ("preset", "train.method", "pretrain.objective")
"""Settings that have a box, so that the line of settings must not contradict it."""
MOST_PROBLEMS = 5
"""Problems of a data set that are shown; the log has all."""


class TrainPanel(Panel):
    """Runs `cps4 inspect`, `prepare`, `pretrain`, `train` and `add-case`, one job at a time."""

    ui_file = "TrainPanel.ui"

    def __init__(self, widget: Any, logic: CPS4SegmentationLogic):
        super().__init__(widget, logic)
        self.model_trained: Callable[[Path], None] = lambda model: None
        """Called with the model folder when the user wants to use it."""
        self._progress = ProgressDisplay(self.ui.progressBar)
        self._curves = TrainingCurves()
        self._job: Job | None = None
        self._training = False
        self._looking_at = ""
        self._stage = ""
        self._model: Path | None = None
        self._fill_boxes()
        self.ui.dataEdit.currentPath = setting("DataSet")
        self.ui.outputEdit.currentPath = setting("Results")
        on_path(self.ui.dataEdit, self._on_data)
        on_path(self.ui.outputEdit, self._on_output)
        self.ui.moreSystemsBox.connect("toggled(bool)", self._offer_more_systems)
        self.ui.methodBox.connect("currentIndexChanged(int)", lambda index: self.refresh())
        self.ui.stagesBox.connect("currentIndexChanged(int)", lambda index: self.refresh())
        self.ui.prepareButton.connect("clicked()", self.prepare)
        self.ui.startButton.connect("clicked()", self.start)
        self.ui.stopButton.connect("clicked()", self.stop)
        self.ui.curvesButton.connect("clicked()", self._curves.show)
        self.ui.useModelButton.connect("clicked()", self.use_model)
        self.ui.addCaseButton.connect("clicked()", self.add_case)

    def inspect(self) -> None:
        """Look at the chosen data set, once there is such a folder; its field speaks at each key."""
        if self._job is not None:
            return
        if not self._data or not Path(self._data).is_dir():
            self.ui.dataLabel.text = ""
        elif self.logic.lacks_packages():
            self.ui.dataLabel.text = _(
                "It can be looked at once what is missing is installed, under Settings."
            )
        else:
            self.ui.dataLabel.text = _("Looking at the data set...")
            self._looking_at = self._data
            self._start([["inspect", self._data]], self._on_inspected)

    def prepare(self) -> None:
        """Make the data set from the files of the source folder."""
        source = self.ui.sourceEdit.currentPath
        if not source or not self._data:
            self.say(_("Choose the folder of the images, and above it the folder of the data set to make."))
            return
        scheme = self.ui.schemeBox.itemData(self.ui.schemeBox.currentIndex)
        self._start([["prepare", source, self._data, "--from", scheme]], self._on_event)

    def start(self) -> None:
        """Start the training, or go on with the one in the results folder."""
        try:
            commands = self._commands()
        except CPS4Error as error:
            show_error(error, self.logic.log)
            return
        self._curves.clear()
        self._training = True
        self._model = None
        self._start(commands, self._on_event)

    def stop(self) -> None:
        """Stop the job; training writes a checkpoint first."""
        if self._job is not None:
            self.say(_("Stopping; the checkpoint is written..."))
            self._job.stop()

    def use_model(self) -> None:
        """Choose the trained model under Segment."""
        if self._model is not None:
            self.model_trained(self._model)
            self.say(_("The model is chosen under Segment."))

    def add_case(self) -> None:
        """Add the current volume and its corrected segmentation to the data set."""
        try:
            image, labels = self._write_case()
        except CPS4Error as error:
            show_error(error, self.logic.log)
            return
        self._start([["add-case", self._data, str(image), str(labels)]], self._on_event)

    def forget_scene(self) -> None:
        """The scene closes; training goes on, its curves come back in the next scene when asked for."""
        super().forget_scene()
        self._curves.forget_nodes()

    def close(self) -> None:
        """The module is unloaded: training stops with a checkpoint."""
        if self._job is not None:
            self._job.close()
            self._job = None

    def refresh(self) -> None:
        """Enable what can be done now."""
        idle = self._job is None
        self.ui.startButton.enabled = idle and bool(self._data and self._output)
        resumes = any(
            (Path(self._output) / stage / "config.json").is_file() for stage in ("stage1", "stage2")
        )
        self.ui.startButton.text = _("Go on") if self._output and resumes else _("Start")
        self.ui.stopButton.enabled = not idle
        self.ui.objectiveBox.enabled = self._trains_stage_1
        self.ui.prepareButton.enabled = idle
        self.ui.curvesButton.enabled = bool(self._curves)
        self.ui.useModelButton.enabled = self._model is not None
        node = self.parameters.segmentation if self.parameters is not None else None
        self.ui.addCaseButton.enabled = idle and bool(self._data) and node is not None

    @property
    def _data(self) -> str:
        return self.ui.dataEdit.currentPath

    @property
    def _output(self) -> str:
        return self.ui.outputEdit.currentPath

    @property
    def _method(self) -> str:
        return self.ui.methodBox.itemData(self.ui.methodBox.currentIndex)

    @property
    def _trains_stage_1(self) -> bool:
        stages = self.ui.stagesBox.currentIndex
        return stages == STAGE_1 or (stages == BOTH and METHODS[self._method].needs_text)

    def _fill_boxes(self) -> None:
        words = {
            "small": _("small: minutes without a graphics card"),
            "paper": _("paper: as published"),
            "base": _("Like the model that comes with CPS4"),
            "folder": _("A folder of volumes (images, labels)"),
            "dicom": _("DICOM series"),
            "mrspineseg": "MRSpineSeg",
            "spider": "SPIDER",
            "totalspineseg": "TotalSpineSeg",
            "spineps": "SPINEPS",
        }
        for box, names in ((self.ui.presetBox, PRESETS), (self.ui.schemeBox, SCHEMES)):
            for name in names:
                box.addItem(words[name], name)
        self._offer_more_systems(False)
        for text in (
            _("Both stages"),
            _("Stage 1 only"),
            _("Stage 2 only, with trained encoders"),
            _("Stage 2, going on from the model under Segment"),
        ):
            self.ui.stagesBox.addItem(text)

    def _offer_more_systems(self, more: bool) -> None:
        """Offer all systems of the paper's Table 1, or those that come first alone."""
        for box, systems, first in (
            (self.ui.methodBox, METHODS, FIRST_METHODS),
            (self.ui.objectiveBox, OBJECTIVES, FIRST_OBJECTIVES),
        ):
            offered = [*first, *(name for name in systems if more and name not in first)]
            if box.itemData(box.currentIndex) not in offered:
                box.currentIndex = 0
            while box.count > len(offered):
                box.removeItem(box.count - 1)
            for name in offered[box.count :]:
                box.addItem(_(systems[name].title), name)
        self.ui.objectiveLabel.visible = self.ui.objectiveBox.visible = more

    def _commands(self) -> list[list[str]]:
        """Return the commands of the chosen training.

        Raises:
            CPS4Error: if it needs a model that is not there, or a setting is given twice.
        """
        preset, objective = (
            box.itemData(box.currentIndex) for box in (self.ui.presetBox, self.ui.objectiveBox)
        )
        device = self.logic.device
        common = ["--preset", preset, "--ratio", f"{self.ui.ratioSlider.value / 100:g}", "--device", device]
        common += [part for change in self._changes() for part in ("--set", change)]
        stage_1, stage_2 = Path(self._output) / "stage1", Path(self._output) / "stage2"
        chosen = self.ui.stagesBox.currentIndex
        first = ["pretrain", self._data, str(stage_1), "--objective", objective, *common]
        if chosen == STAGE_1:
            return [first]
        second = ["train", self._data, str(stage_2), "--method", self._method, *common]
        if chosen == GO_ON:
            second += ["--start", str(self._model_under_segment())]
        if not METHODS[self._method].needs_text:
            return [second]
        if chosen == BOTH:
            return [first, [*second, "--encoders", str(stage_1 / "model")]]
        mine = chosen == STAGE_2 and holds_model(stage_1 / "model")
        encoders = stage_1 / "model" if mine else self._model_under_segment()
        return [[*second, "--encoders", str(encoders)]]

    def _changes(self) -> list[str]:
        """Return the line of settings, one ``group.field=value`` each."""
        changes = [change.strip() for change in self.ui.settingsEdit.text.split(";") if change.strip()]
        for name in (change.partition("=")[0].strip() for change in changes):
            if name in CHOSEN_ABOVE:
                raise CPS4Error(
                    _("The setting {name} has a box of its own.").format(name=name),
                    _("Choose it there, and take it out of More settings."),
                )
        return changes

    def _model_under_segment(self) -> Path:
        if self.logic.model is None:
            raise CPS4Error(
                _("There is no model to begin with."), _("Choose one under Segment, or train both stages.")
            )
        return self.logic.model

    def _write_case(self) -> tuple[Path, Path]:
        """Write the volume and the labels of the current segmentation for the engine."""
        node = self.scene.segmentation
        volume = source_volume(node)
        if volume is None:
            raise CPS4Error(
                _("The MR volume of the segmentation is not in the scene."), _("Load it, then try again.")
            )
        image = self.logic.volumes.path_of(volume)
        labels = self.logic.new_folder("case") / "labels.nii.gz"
        exports.write_nifti(node, labels)
        return image, labels

    def _start(self, commands: list[list[str]], on_event: Callable[[Event], None]) -> None:
        try:
            self.logic.ensure_engine()
        except CPS4Error as error:
            self._training = False
            show_error(error, self.logic.log)
            return
        self._progress.start(_("Starting"))
        self._job = Job(commands, on_event, self.logic.log, self._on_end)
        self.refresh()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Started):
            self._stage = _("stage 1") if event.job == "pretrain" else _("stage 2")
            self.say(
                _("Training {stage} on {device}.").format(
                    stage=self._stage, device=event.details.get("device", "?")
                )
            )
        elif isinstance(event, Progress):
            self._progress.show(event)
        elif isinstance(event, Metric):
            self._curves.add(self._stage, event.step, event.values)
            self._say_score(event)
            self.ui.curvesButton.enabled = True
        elif isinstance(event, Artifact):
            self._take(event)
        elif isinstance(event, Warned):
            self.logic.log(event.message)
        elif isinstance(event, Failed):
            self.say(in_words(event))
            show_error(event, self.logic.log)

    def _take(self, event: Artifact) -> None:
        if event.role == "preview":
            picture = qt.QPixmap(event.path)
            width = max(self.widget.width - 40, 200)
            self.ui.previewLabel.setPixmap(
                picture.scaledToWidth(width, qt.Qt.SmoothTransformation)
                if picture.width() > width
                else picture
            )
        elif event.role == "model":
            self._model = Path(event.path)
        elif event.role == "data set":
            self.ui.dataLabel.text = self._counts(event.details)
        elif event.role == "case":
            self.say(
                _("Added as {case}. Choose `going on from the model under Segment` to train with it.").format(
                    case=event.details["case"]
                )
            )

    def _say_score(self, event: Metric) -> None:
        if "validation_mdice" in event.values:
            dice = event.values["validation_mdice"]
            self.say(
                _("Step {step}: Dice {dice:.3f} on validation cases.").format(step=event.step, dice=dice)
            )

    def _on_inspected(self, event: Event) -> None:
        if isinstance(event, Failed):
            self.ui.dataLabel.text = in_words(event)
        elif isinstance(event, Warned):
            self.logic.log(event.message)
        elif isinstance(event, Finished) and "labelled" in event.details:
            problems = event.details["problems"]
            text = self._counts(event.details)
            if problems:
                text += "\n" + "\n".join(problems[:MOST_PROBLEMS])
                more = len(problems) - MOST_PROBLEMS
                text += _("\nand {count} more, in the log.").format(count=more) if more > 0 else ""
            self.ui.dataLabel.text = text

    @staticmethod
    def _counts(details: dict[str, Any]) -> str:
        return _("{labelled} labelled, {unlabelled} unlabelled and {test} test cases.").format(**details)

    def _on_end(self, outcome: Outcome) -> None:
        trained, self._training, self._job = self._training, False, None
        looked_at, self._looking_at = self._looking_at, ""
        self._progress.reset()
        if trained and outcome is Outcome.STOPPED:
            self.say(_("Stopped. Go on continues from the checkpoint."))
        elif trained and outcome is Outcome.DONE:
            self.say(_("Done. Use this model chooses it under Segment."))
        self.refresh()
        if looked_at and looked_at != self._data:  # the path was typed on meanwhile
            self.inspect()

    def _on_data(self, path: str) -> None:
        remember("DataSet", path)
        self.refresh()
        self.inspect()

    def _on_output(self, path: str) -> None:
        remember("Results", path)
        self._model = next(
            (
                model
                for model in (Path(path) / "stage2" / "model", Path(path) / "stage1" / "model")
                if path and holds_model(model)
            ),
            None,
        )
        self.refresh()
