"""Modal dialogs without a person: each is recorded, and answered as the test said before.

A message with one button is accepted. A question that no test answered is an error, because a real window would
wait for ever. A modal dialog runs an event loop of its own, inside the handler that opened it: timers, processes and
other slots go on meanwhile, and here too. An answer that is a function may let them go on for longer.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PySide6 import QtWidgets

Answer = str | int | Callable[[QtWidgets.QDialog], Any]


@dataclass(frozen=True)
class Message:
    """A message box as the user would see it."""

    text: str
    title: str = ""
    details: str = ""
    icon: str = ""  # NoIcon, Information, Warning, Critical or Question
    buttons: tuple[str, ...] = ()


@dataclass
class Dialogs:
    messages: list[Message] = field(default_factory=list)
    _answers: deque[Answer] = field(default_factory=deque)

    def answer(self, *answers: Answer) -> None:
        """Queues answers for the next dialogs: a button's name ("Yes"), a path for a file dialog ("" cancels it),
        or a function that gets the dialog and returns its result."""
        self._answers.extend(answers)

    @property
    def unused_answers(self) -> list[Answer]:
        return list(self._answers)

    @property
    def errors(self) -> list[Message]:
        return [message for message in self.messages if message.icon == "Critical"]

    def run_message_box(self, box: QtWidgets.QMessageBox) -> int:
        _let_events_through()
        offered = [button for button in QtWidgets.QMessageBox.StandardButton if button & box.standardButtons]
        buttons = {button.name: button for button in offered}
        custom = {button.text.replace("&", ""): button for button in box.buttons()}
        names = tuple(buttons) or tuple(custom)
        self.messages.append(
            Message(box.text, box.windowTitle.strip(), box.detailedText, box.icon.name, names)
        )
        if not self._answers and len(names) <= 1:
            return int(next(iter(buttons.values()), 0))
        answer = self._next(f"the message box '{box.text}' with {', '.join(names)}")
        if callable(answer):
            return answer(box)
        if answer in custom and answer not in buttons:
            custom[answer].click()
            return 0
        if answer not in buttons:
            raise AssertionError(f"'{box.text}' has no button {answer}, only {', '.join(names)}")
        return int(buttons[answer])

    def run_dialog(self, dialog: QtWidgets.QDialog) -> int:
        _let_events_through()
        answer = self._next(f"the dialog {type(dialog).__name__} '{dialog.windowTitle}'")
        return int(answer(dialog) if callable(answer) else answer)

    def choose(self, what: str) -> Any:
        _let_events_through()
        return self._next(what)

    def _next(self, what: str) -> Answer:
        if not self._answers:
            raise AssertionError(f"nobody answers {what}: queue an answer with harness.dialogs.answer(...)")
        return self._answers.popleft()

    def install(self) -> Callable[[], None]:
        """Puts the records in the place of Qt's modal loops; returns what undoes it."""
        replaced = [
            _replace(QtWidgets.QDialog, "exec_", lambda dialog: self.run_dialog(dialog)),
            _replace(QtWidgets.QMessageBox, "exec_", lambda box: self.run_message_box(box)),
            *self._install_static_messages(),
            *self._install_static_choices(),
        ]
        return lambda: [undo() for undo in replaced]

    def _install_static_messages(self) -> list[Callable[[], None]]:
        def static(icon: str, default: str) -> staticmethod:
            def show(parent: Any, title: str, text: str, buttons: Any = None, *_: Any) -> int:
                box = QtWidgets.QMessageBox()
                box.windowTitle, box.text = title, text
                box.setIcon(getattr(QtWidgets.QMessageBox, icon))
                box.setStandardButtons(
                    buttons if buttons is not None else getattr(QtWidgets.QMessageBox, default)
                )
                return self.run_message_box(box)

            return staticmethod(show)

        both = QtWidgets.QMessageBox.Yes | QtWidgets.QMessageBox.No
        QtWidgets.QMessageBox.YesAndNo = both
        kinds = (("information", "Information"), ("warning", "Warning"), ("critical", "Critical"))
        return [
            *[_replace(QtWidgets.QMessageBox, name, static(icon, "Ok")) for name, icon in kinds],
            _replace(QtWidgets.QMessageBox, "question", static("Question", "YesAndNo")),
        ]

    def _install_static_choices(self) -> list[Callable[[], None]]:
        file_dialog = ("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory")
        input_dialog = ("getText", "getItem", "getInt", "getDouble", "getMultiLineText")
        return [
            _replace(
                cls, name, staticmethod(lambda *arguments, _what=f"{cls.__name__}.{name}": self.choose(_what))
            )
            for cls, names in ((QtWidgets.QFileDialog, file_dialog), (QtWidgets.QInputDialog, input_dialog))
            for name in names
        ]


def _let_events_through() -> None:
    QtWidgets.QApplication.processEvents()


def _replace(cls: type, name: str, value: Any) -> Callable[[], None]:
    before = cls.__dict__.get(name)
    setattr(cls, name, value)
    return lambda: setattr(cls, name, before) if before is not None else delattr(cls, name)
