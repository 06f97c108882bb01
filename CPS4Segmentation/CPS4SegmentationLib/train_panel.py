from CPS4SegmentationLib.panel import Panel


class TrainPanel(Panel):
    ui_file = "TrainPanel.ui"
