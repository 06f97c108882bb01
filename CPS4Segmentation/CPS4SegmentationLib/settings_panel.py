from CPS4SegmentationLib.panel import Panel


class SettingsPanel(Panel):
    ui_file = "SettingsPanel.ui"
